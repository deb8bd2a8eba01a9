"""Two rows of every shape, which `pairtune formats` and docs/data.md show; read by the tests like any other."""

import json
from typing import Any

_HI, _HELLO, _WHAT = "Say hello.", "Hello!", "What?"
_BYE, _SEE, _NO = "Say goodbye.", "See you!", "No."


def _turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _said(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


_ROWS: dict[str, list[dict[str, Any]]] = {
    "several-sides": [
        {"prompt": _HI, "chosen": [_HELLO], "rejected": [_WHAT, _NO]},
        {"prompt": _BYE, "chosen": [_SEE, "Farewell!"], "rejected": [_NO]},
    ],
    "pairs": [
        {"prompt": _HI, "chosen": _HELLO, "rejected": _WHAT},
        {"prompt": _turns(_BYE), "chosen": [_answer(_SEE)], "rejected": [_answer(_NO)]},
    ],
    "dialogues": [
        {"chosen": _turns(_HI, _HELLO), "rejected": _turns(_HI, _WHAT)},
        {
            "chosen": f"\n\nHuman: {_BYE}\n\nAssistant: {_SEE}",
            "rejected": f"\n\nHuman: {_BYE}\n\nAssistant: {_NO}",
        },
    ],
    "sharegpt-ranking": [
        {"conversations": [_said("human", _HI)], "chosen": _said("gpt", _HELLO), "rejected": _said("gpt", _WHAT)},
        {"messages": _turns(_BYE), "chosen": _answer(_SEE), "rejected": _answer(_NO)},
    ],
    "llama-factory-ranking": [
        {"instruction": "Say it in French.", "input": _HELLO, "chosen": "Bonjour !", "rejected": _WHAT},
        {"instruction": _BYE, "input": "", "chosen": _SEE, "rejected": _NO, "system": "Be brief."},
    ],
    "llama-factory-outputs": [
        {"instruction": _HI, "input": "", "output": [_HELLO, _WHAT]},
        {"instruction": _BYE, "input": "", "output": [_SEE, _NO]},
    ],
    "openai": [
        {
            "input": {"messages": _turns(prompt), "tools": []},
            "preferred_output": [_answer(good)],
            "non_preferred_output": [_answer(bad)],
        }
        for prompt, good, bad in ((_HI, _HELLO, _WHAT), (_BYE, _SEE, _NO))
    ],
    "implicit": [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "Two and two make four.", "rejected": "Two and two make a crowd."},
    ],
    "two-sides": [
        {"question": _HI, "response_j": _HELLO, "response_k": _WHAT},
        {"question": _BYE, "response_j": _SEE, "response_k": _NO},
    ],
    "swift": [
        {"messages": _turns(_HI, _HELLO), "rejected_response": _WHAT},
        {"messages": _turns(_BYE, _SEE), "rejected_response": _NO},
    ],
    "verdict": [
        {"prompt": _HI, "response_a": _HELLO, "response_b": _WHAT, "winner": "a"},
        {"prompt": _BYE, "response_a": _NO, "response_b": _SEE, "winner": "b"},
    ],
    "summaries": [
        {"info": {"post": _HI}, "summaries": [{"text": _HELLO}, {"text": _WHAT}], "choice": 0},
        {"info": {"post": _BYE}, "summaries": [{"text": _NO}, {"text": _SEE}], "choice": 1},
    ],
    "answers": [
        {"instruction": _HI, "completions": [{"response": _WHAT, "score": 2}, {"response": _HELLO, "score": 9}]},
        {"instruction": _BYE, "completions": [{"response": _SEE, "score": 8}, {"response": _NO, "score": 1}]},
    ],
    "scored-rows": [
        {"prompt": _HI, "response": _HELLO, "helpfulness": 4},
        {"prompt": _HI, "response": _WHAT, "helpfulness": 1},
    ],
    "labels": [
        {"prompt": _HI, "response": _HELLO, "label": True},
        {"prompt": _BYE, "response": _NO, "label": False},
    ],
    "named-labels": [
        {"messages": _turns(_HI, _HELLO), "kto_tag": True},
        {"messages": _turns(_BYE, _NO), "kto_tag": False},
    ],
    "demonstrations": [{"prompt": _HI, "response": _HELLO}, {"messages": _turns(_BYE, _SEE)}],
    "alpaca": [
        {"instruction": "Say it in French.", "input": _HELLO, "output": "Bonjour !"},
        {"instruction": _BYE, "input": "", "output": _SEE},
    ],
    "sharegpt": [
        {"conversations": [_said("human", _HI), _said("gpt", _HELLO)]},
        {"conversations": [_said("human", _BYE), _said("gpt", _SEE)]},
    ],
    "prompts": [{"prompt": _HI}, {"messages": _turns(_BYE)}],
    "named-prompts": [{"question": _HI}, {"question": _BYE}],
}

EXAMPLES = {name: tuple(json.dumps(row, ensure_ascii=False) for row in rows) for name, rows in _ROWS.items()}

#: Data sets and tools whose rows have a shape, for those that look for theirs.
SEEN = {
    "several-sides": "RewardBench 2, RM-Bench",
    "pairs": "TRL, axolotl (chatml.prompt_pairs, chatml.ultra), UltraFeedback binarised, Tulu 3, Snorkel, RewardBench, "
    "OpenHermesPreferences, rm-static, summarize comparisons, orpo-dpo-mix-40k, truthy-dpo, py-dpo",
    "dialogues": "TRL, hh-rlhf, Skywork preference, RLHFlow, dpo-mix-7k, Magpie DPO",
    "sharegpt-ranking": "LLaMA-Factory, axolotl (chat_template.default), OpenRLHF, Capybara and UltraInteract pairs",
    "llama-factory-ranking": "LLaMA-Factory",
    "llama-factory-outputs": "LLaMA-Factory of old",
    "openai": "OpenAI, Together, Fireworks",
    "implicit": "TRL",
    "two-sides": "axolotl (chatml.intel, chatml.icr, chatml.argilla), Orca pairs, NeMo Aligner, torchtune, DPO-En-Zh, "
    "UltraFeedback by Argilla, StackExchange pairs, Code-Preference-Pairs, ms-swift of old",
    "swift": "ms-swift",
    "verdict": "PKU-SafeRLHF, SHP, HelpSteer2 and HelpSteer3 preference, AlpacaEval, AlpacaFarm, arena votes, MT-bench "
    "judgments, WebGPT comparisons, JudgeBench, OffsetBias",
    "summaries": "summarize from feedback",
    "answers": "UltraFeedback, Nectar, distilabel, StackExchange preferences, NeMo RL, Gemini preference tuning",
    "scored-rows": "HelpSteer, HelpSteer2",
    "labels": "TRL, kto-mix-14k, axolotl",
    "named-labels": "LLaMA-Factory, ms-swift",
}
