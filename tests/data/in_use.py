"""Preference data as people have it: columns, values and containers of data sets and tools in use, rows written anew.

A case holds four to six rows, and by hand what they are: (prompt, chosen, rejected), (prompt, response, label), or the
line that refuses them. Turns are ("role", "text") where they are short to write.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pairtune.data.asked import Asked
from pairtune.data.schema import Message

JSONL, JSON, CSV, PARQUET = "d.jsonl", "d.json", "d.csv", "d.parquet"


@dataclass(frozen=True)
class Case:
    """Rows of one data set, and what they are."""

    rows: Sequence[dict[str, Any]]
    pairs: Sequence[tuple[Any, ...]] = ()
    labels: Sequence[tuple[Any, str, bool]] = ()
    refused: str = ""  #: a part of the line
    name: str = JSONL
    left_out: Sequence[str] = ()  #: reasons, row by row
    unread: Sequence[str] = ()
    asked: Asked = field(default_factory=Asked)


def turn(role: str, text: Any, **more: Any) -> dict[str, Any]:
    """A turn of role and content."""
    return {"role": role, "content": text, **more}


def user(text: str) -> dict[str, Any]:
    """What the user says."""
    return turn("user", text)


def answer(text: str) -> dict[str, Any]:
    """What is answered."""
    return turn("assistant", text)


def said(speaker: str, text: str) -> dict[str, Any]:
    """A turn of from and value."""
    return {"from": speaker, "value": text}


def chat(*texts: str) -> list[dict[str, Any]]:
    """Turns of the user and the assistant by turns."""
    return [turn(("user", "assistant")[at % 2], text) for at, text in enumerate(texts)]


def turns(*texts: str, system: str = "") -> tuple[Message, ...]:
    """The same as they are read."""
    read = [Message(("user", "assistant")[at % 2], text) for at, text in enumerate(texts)]
    return (*([Message("system", system)] if system else []), *read)


def parts(*texts: str) -> list[dict[str, Any]]:
    """Content in parts."""
    return [{"type": "text", "text": text} for text in texts]


def write(case: Case) -> str:
    """The rows in their container; its name."""
    path, rows, names = Path(case.name), case.rows, list(dict.fromkeys(name for row in case.rows for name in row))
    if case.name == JSONL:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif case.name == JSON:
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif case.name == PARQUET:
        table = import_module("pyarrow").Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
        import_module("pyarrow.parquet").write_table(table, case.name)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return case.name


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": {"type": "object"}}}]
_XY = [("0?", "x", "y"), ("1?", "y", "x"), ("2?", "y", "x"), ("3?", "x", "y")]
_BY_TURNS = [(turns(prompt), good, poor) for prompt, good, poor in _XY]
#: Which of x and y is better, row by row, as in _XY.
_FIRST = (True, False, False, True)


def _sides(first: bool) -> tuple[str, str]:
    return ("x", "y") if first else ("y", "x")


def _answers(first: bool, good: Any, poor: Any) -> tuple[Any, Any]:
    """Values for x and y."""
    return (good, poor) if first else (poor, good)


def _each(make: Any) -> list[dict[str, Any]]:
    """A row for each of the four questions: make(question, chosen, rejected)."""
    return [make(f"{at}?", *_sides(first)) for at, first in enumerate(_FIRST)]


def _judged(make: Any, good: Any, poor: Any) -> list[dict[str, Any]]:
    """A row for each of the four questions: make(question, value for x, value for y)."""
    return [make(f"{at}?", *_answers(first, good, poor)) for at, first in enumerate(_FIRST)]


def _voted(make: Any, first_said: Any, second_said: Any) -> list[dict[str, Any]]:
    """A row for each of the four questions: make(question, verdict)."""
    return [make(f"{at}?", first_said if first else second_said) for at, first in enumerate(_FIRST)]


def _whole(question: str, text: str) -> list[dict[str, Any]]:
    return chat(question, text)


# fmt: off
IN_USE: dict[str, Case] = {
    # --- tools
    "TRL: prompt and sides": Case(_each(lambda q, w, r: {"prompt": q, "chosen": w, "rejected": r}), _XY),
    "TRL: sides that share their beginning": Case([{"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "Grass is always green", "rejected": "Grass is always grey"}, {"chosen": "Two and two make four",
        "rejected": "Two and two make five"}, {"chosen": "Snow is cold, and white.",
        "rejected": "Snow is cold, or not."}], [("The sky is", " blue.", " green."), ("Grass is always", " green",
        " grey"), ("Two and two make", " four", " five"), ("Snow is cold,", " and white.", " or not.")]),
    "TRL: turns": Case([{"prompt": [user("0?")], "chosen": [answer("x")], "rejected": [answer("y")]},
        {"prompt": chat("0?", "x", "1?"), "chosen": [answer("y")], "rejected": [answer("x")]},
        {"prompt": [turn("system", "Be brief."), user("2?")], "chosen": [answer("y")], "rejected": [answer("x")]},
        {"prompt": [user("3?")], "chosen": [answer("x")], "rejected": [answer("y")]}], [(turns("0?"), "x", "y"),
        (turns("0?", "x", "1?"), "y", "x"), (turns("2?", system="Be brief."), "y", "x"), (turns("3?"), "x", "y")],
        name=PARQUET),
    "TRL: dialogues": Case(_each(lambda q, w, r: {"chosen": _whole(q, w), "rejected": _whole(q, r)}), _BY_TURNS),
    "TRL: tools": Case([{"prompt": [user(f"{at}?")], "tools": json.dumps(TOOLS), "rejected": [answer("y")],
        "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"type": "function",
        "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]}]} for at in range(4)], [(turns(f"{at}?"),
        Message("assistant", "", json.dumps({"tool_calls": [{"type": "function", "function": {"name": "weather",
        "arguments": {"city": "Oslo"}}}]})), "y") for at in range(4)]),
    "TRL: unpaired": Case([{"prompt": f"{at}?", "completion": "x", "label": first} for at, first in enumerate(_FIRST)],
        labels=[(f"{at}?", "x", first) for at, first in enumerate(_FIRST)], name=CSV),
    "kto-mix-14k": Case([{"prompt": [user(f"{at}?")], "completion": [answer("x")], "label": first} for at,
        first in enumerate(_FIRST)], labels=[(turns(f"{at}?"), "x", first) for at, first in enumerate(_FIRST)],
        name=PARQUET),
    "LLaMA-Factory: ranking": Case([{"instruction": "0?", "input": "", "chosen": "x", "rejected": "y", "system": "",
        "history": []}, {"instruction": "Say:", "input": "1", "chosen": "y", "rejected": "x", "system": "",
        "history": []}, {"instruction": "2?", "input": "", "chosen": "y", "rejected": "x", "system": "Be brief.",
        "history": []}, {"instruction": "3?", "input": "", "chosen": "x", "rejected": "y", "system": "Be brief.",
        "history": [["1?", "y"], ["2?", "y"]]}], [(turns("0?"), "x", "y"), (turns("Say:\n1"), "y", "x"), (turns("2?",
        system="Be brief."), "y", "x"), (turns("1?", "y", "2?", "y", "3?", system="Be brief."), "x", "y")], name=JSON),
    "LLaMA-Factory: ShareGPT ranking": Case([{"conversations": [said("human", q)], "chosen": said("gpt", w),
        "rejected": said("gpt", r)} for q, w, r in _XY[:3]] + [{"conversations": [said("human", "0?"),
        said("function_call", '{"name": "f", "arguments": {}}'), said("observation", "7"), said("gpt", "x"),
        said("human", "3?")], "chosen": said("gpt", "x"), "rejected": said("gpt", "y"), "system": "Be brief."}],
        [*_BY_TURNS[:3], ((Message("system", "Be brief."), Message("user", "0?"), Message("assistant", "",
        json.dumps({"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
        "content": None})), Message("tool", "7"), Message("assistant", "x"), Message("user", "3?")), "x", "y")],
        name=JSON),
    "LLaMA-Factory: KTO": Case([{"messages": chat("1?", "y", f"{at}?", "x"), "label": first} for at,
        first in enumerate(_FIRST)], labels=[(turns("1?", "y", f"{at}?"), "x", first) for at,
        first in enumerate(_FIRST)], name=JSON),
    "LLaMA-Factory: KTO, Alpaca": Case([{"instruction": "Say:", "input": f"{at}", "output": "x", "kto_tag": first,
        "system": "Be brief."} for at, first in enumerate(_FIRST)], labels=[(turns(f"Say:\n{at}", system="Be brief."),
        "x", first) for at, first in enumerate(_FIRST)], name=JSON),
    "axolotl: chatml.intel": Case(_each(lambda q, w, r: {"system": "Be brief.", "question": q, "chosen": w,
        "rejected": r}), [(turns(q, system="Be brief."), w, r) for q, w, r in _XY]),
    "axolotl: chatml.icr": Case(_each(lambda q, w, r: {"system": "Be brief.", "input": q, "chosen": w, "rejected": r}),
        [(turns(q, system="Be brief."), w, r) for q, w, r in _XY]),
    "axolotl: chatml.argilla": Case(_each(lambda q, w, r: {"system": "", "instruction": q, "chosen_response": w,
        "rejected_response": r}), _BY_TURNS),
    "axolotl: chatml.prompt_pairs, truthy-dpo": Case(_each(lambda q, w, r: {"id": "7", "source": "t", "system": "",
        "prompt": q, "chosen": w, "rejected": r}), _BY_TURNS),
    "axolotl: chatml.ultra": Case(_each(lambda q, w, r: {"system": "Be brief.", "prompt": q, "chosen": _whole(q, w),
        "rejected": _whole(q, r)}), [(turns(q, system="Be brief."), w, r) for q, w, r in _XY]),
    "axolotl: user_defined, by --columns": Case(_each(lambda q, w, r: {"sys": "Be brief.", "q": q, "good": w,
        "bad": r}), [(turns(q, system="Be brief."), w, r) for q, w, r in _XY], asked=Asked(columns={"system": "sys",
        "prompt": "q", "chosen": "good", "rejected": "bad"})),
    "axolotl: chat_template.default": Case(_each(lambda q, w, r: {"messages": [user(q)], "chosen": answer(w),
        "rejected": answer(r)}), _BY_TURNS),
    "axolotl: field_messages by --columns": Case(_each(lambda q, w, r: {"talk": [user(q)], "pick": answer(w),
        "drop": answer(r)}), _BY_TURNS, asked=Asked(columns={"messages": "talk", "chosen": "pick",
        "rejected": "drop"})),
    "axolotl: KTO, chatml.intel": Case([{"system": "Be brief.", "question": f"{at}?", "completion": "x",
        "label": str(first).lower()} for at, first in enumerate(_FIRST)], labels=[(turns(f"{at}?", system="Be brief."),
        "x", first) for at, first in enumerate(_FIRST)]),
    "ms-swift: rejected_response": Case([{"messages": [turn("system", "Be brief."), *chat("9?", "z", q, w)],
        "rejected_response": r} for q, w, r in _XY], [(turns("9?", "z", q, system="Be brief."), w, r) for q, w,
        r in _XY]),
    "ms-swift: rejected_messages": Case(_each(lambda q, w, r: {"messages": _whole(q, w), "rejected_messages": _whole(q,
        r)}), _BY_TURNS, name=PARQUET),
    "ms-swift: query, response, rejected_response": Case([{"system": "Be brief.", "query": q, "response": w,
        "rejected_response": r, "history": [["9?", "z"]]} for q, w, r in _XY], [(turns("9?", "z", q,
        system="Be brief."), w, r) for q, w, r in _XY]),
    "ms-swift: label": Case([{"messages": chat(f"{at}?", "x"), "label": first} for at, first in enumerate(_FIRST)],
        labels=[(turns(f"{at}?"), "x", first) for at, first in enumerate(_FIRST)]),
    "OpenAI, Together, Fireworks": Case(_each(lambda q, w, r: {"input": {"messages": [turn("system", "Be brief."),
        user(q)], "tools": [], "parallel_tool_calls": True}, "preferred_output": [answer(w)],
        "non_preferred_output": [answer(r)]}), [(turns(q, system="Be brief."), w, r) for q, w, r in _XY]),
    "Gemini preference tuning": Case([{"system_instruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "9?"}]}, {"role": "model", "parts": [{"text": "z"}]},
        {"role": "user", "parts": [{"text": q}]}], "completions": [{"score": score, "completion": {"role": "model",
        "parts": [{"text": text}]}} for score, text in ((1, w), (0, r))]} for q, w, r in _XY], [(turns("9?", "z", q,
        system="Be brief."), w, r) for q, w, r in _XY]),
    "Bedrock preference tuning": Case([{"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": q}]}, {"role": "assistant",
        "candidates": [{"content": [{"text": w}], "preferenceLabel": "preferred"}, {"content": [{"text": r}],
        "preferenceLabel": "non-preferred"}]}]} for q, w, r in _XY], refused="Bedrock"),
    "NeMo Aligner": Case([{"prompt": f"<extra_id_0>System\n\n<extra_id_1>User\n{q}\n<extra_id_1>Assistant\n",
        "chosen_response": f"{w}\n<extra_id_1>", "rejected_response": f"{r}\n<extra_id_1>", "chosen_reward": 4.0,
        "rejected_reward": 1.0} for q, w, r in _XY],
        [(f"<extra_id_0>System\n\n<extra_id_1>User\n{q}\n<extra_id_1>Assistant\n", f"{w}\n<extra_id_1>",
        f"{r}\n<extra_id_1>") for q, w, r in _XY]),
    "NeMo RL": Case(_each(lambda q, w, r: {"context": [user(q)], "completions": [{"rank": 1, "completion": [answer(r)]},
        {"rank": 0, "completion": [answer(w)]}], "task_name": "p"}), _BY_TURNS),
    "torchtune": Case(_each(lambda q, w, r: {"chosen_conversations": _whole(q, w), "rejected_conversations": _whole(q,
        r)}), _BY_TURNS, name=JSON),
    "OpenRLHF: context_messages": Case(_each(lambda q, w, r: {"context_messages": [user(q)], "chosen": w,
        "rejected": r}), _BY_TURNS),
    # --- data sets: two named sides
    "hh-rlhf": Case([{"chosen": f"\n\nHuman: 9?\n\nAssistant: z\n\nHuman: {q}\n\nAssistant: {w}",
        "rejected": f"\n\nHuman: 9?\n\nAssistant: z\n\nHuman: {q}\n\nAssistant: {r}"} for q, w, r in _XY], [(turns("9?",
        "z", q), w, r) for q, w, r in _XY]),
    "rm-static": Case(_each(lambda q, w, r: {"prompt": f"\n\nHuman: {q}\n\nAssistant:", "response": f" {w}",
        "chosen": f" {w}", "rejected": f" {r}"}), [(f"\n\nHuman: {q}\n\nAssistant:", f" {w}", f" {r}") for q, w,
        r in _XY], name=PARQUET),
    "summarize comparisons": Case(_each(lambda q, w, r: {"prompt": f"POST: {q}\n\nTL;DR:", "chosen": f" {w}",
        "rejected": f" {r}"}), [(f"POST: {q}\n\nTL;DR:", f" {w}", f" {r}") for q, w, r in _XY], name=PARQUET),
    "UltraFeedback, binarised": Case(_each(lambda q, w, r: {"prompt": q, "prompt_id": "7", "chosen": _whole(q, w),
        "rejected": _whole(q, r), "messages": _whole(q, w), "score_chosen": 8.5, "score_rejected": 8.5}), _BY_TURNS,
        name=PARQUET),
    "UltraFeedback, binarised by Argilla": Case(_each(lambda q, w, r: {"source": "evol", "instruction": q,
        "chosen_response": w, "rejected_response": r, "chosen_avg_rating": 5.0, "rejected_avg_rating": 3.75,
        "chosen_model": "m"}), _XY, name=PARQUET),
    "UltraFeedback, cleaned by Argilla": Case(_each(lambda q, w, r: {"source": "evol", "prompt": q, "chosen": _whole(q,
        w), "chosen-rating": 5.0, "chosen-model": "m", "rejected": _whole(q, r), "rejected-rating": 3.75,
        "rejected-model": "n"}), _BY_TURNS, name=PARQUET),
    "dpo-mix-7k": Case([{"dataset": "d", "chosen": chat("9?", "z", q, w), "chosen_rating": 5.0, "rejected": chat("9?",
        "z", q, r), "rejected_rating": 4.0} for q, w, r in _XY], [(turns("9?", "z", q), w, r) for q, w, r in _XY],
        name=PARQUET),
    "Orca pairs by Argilla": Case(_each(lambda q, w, r: {"system": "", "input": q, "chosen": w, "rejected": r,
        "generations": [r, w], "order": ["rejected", "chosen"], "labelling_model": "m",
        "labelling_prompt": [user("Which is better?")], "raw_labelling_response": "1\n9\nIt is so.", "rating": [1.0,
        9.0], "rationale": "It is so.", "status": "unchanged", "original_chosen": w, "original_rejected": r,
        "chosen_score": 9.0, "in_gsm8k_train": False}), _BY_TURNS, name=PARQUET, unread=["labelling_prompt",
        "raw_labelling_response", "rationale"]),
    "Capybara pairs": Case([{"source": "s", "conversation": [{"input": "9?", "output": "z"}, {"input": q,
        "output": "old"}], "original_response": "old", "generation_prompt": ["<s>[INST] 9?"],
        "raw_generation_responses": ["x"], "new_generations": ["x", "y"], "chosen": chat("9?", "z", q, w),
        "rejected": chat("9?", "z", q, r), "rating_chosen": 5, "rating_rejected": 4} for q, w, r in _XY], [(turns("9?",
        "z", q), w, r) for q, w, r in _XY], name=PARQUET, unread=["generation_prompt"]),
    "OpenHermesPreferences": Case(_each(lambda q, w, r: {"source": "s", "category": "c", "prompt": q,
        "candidates_completions": [r, w, "z"], "candidate_policies": ["m", "n", "o"], "ranks": [1, 2, 3],
        "rank_str": "m > n > o", "chosen_policy": "n", "rejected_policy": "m", "chosen": _whole(q, w),
        "rejected": _whole(q, r)}), _BY_TURNS, name=PARQUET, unread=["rank_str"]),
    "Snorkel": Case(_each(lambda q, w, r: {"prompt_id": "7", "prompt": q, "chosen": _whole(q, w), "rejected": _whole(q,
        r), "all_generated_responses": [r, w], "all_rm_scores": [9.0, 1.0]}), _BY_TURNS, name=PARQUET, unread=[]),
    "Skywork preference": Case(_each(lambda q, w, r: {"chosen": _whole(q, w), "rejected": _whole(q, r), "source": "s"}),
        _BY_TURNS, name=PARQUET),
    "RLHFlow": Case(_each(lambda q, w, r: {"rejected": _whole(q, r), "rejected_score": 9.0, "chosen_score": 1.0,
        "chosen": _whole(q, w)}), _BY_TURNS),
    "UltraInteract pairs": Case([{"task": "Math", "dataset": "d", "trajectory": [said("user", "9?"), said("assistant",
        "z"), said("user", q)], "chosen": w, "rejected": r, "id": "7", "parent_id": "6"} for q, w, r in _XY],
        [(turns("9?", "z", q), w, r) for q, w, r in _XY], name=PARQUET),
    "Tulu 3 mixture": Case(_each(lambda q, w, r: {"id": "7", "source": "s", "prompt": q, "chosen": _whole(q, w),
        "rejected": _whole(q, r), "chosen_rating": 4.0, "rejected_rating": 1.0, "chosen_model": "m"}), _BY_TURNS,
        name=PARQUET),
    "Magpie DPO": Case(_each(lambda q, w, r: {"uuid": "7", "instruction": q, "gen_input_configs": {"temperature": 1.0},
        "responses": [r, w], "rewards_armorm": [{"score": 0.1}, {"score": 0.2}], "chosen": _whole(q, w),
        "rejected": _whole(q, r)}), _BY_TURNS, name=PARQUET, unread=["rewards_armorm"]),
    "orpo-dpo-mix-40k": Case(_each(lambda q, w, r: {"source": "s", "chosen": _whole(q, w), "rejected": _whole(q, r),
        "prompt": q, "question": q}), _BY_TURNS, name=PARQUET),
    "py-dpo": Case(_each(lambda q, w, r: {"prompt": q, "chosen": w, "rejected": r, "id": "7"}), _XY, name=PARQUET),
    "chatml_dpo_pairs": Case([{"prompt": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n",
        "chosen": f"{w}<|im_end|>", "rejected": f"{r}<|im_end|>"} for q, w, r in _XY],
        [(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n", f"{w}<|im_end|>", f"{r}<|im_end|>") for q, w,
        r in _XY], name=PARQUET),
    "Code-Preference-Pairs": Case(_each(lambda q, w, r: {"input": q, "accepted": w, "rejected": r, "ID": 7}), _XY,
        name=CSV),
    "DPO-En-Zh": Case([{"system": "Be brief.", "history": [["9?", "z"]], "question": q, "response_rejected": r,
        "response_chosen": w} for q, w, r in _XY], [(turns("9?", "z", q, system="Be brief."), w, r) for q, w,
        r in _XY]),
    "StackExchange, paired": Case(_each(lambda q, w, r: {"qid": 7, "question": q, "date": "2011/01/11",
        "metadata": ["a", "b"], "response_j": w, "response_k": r}), _XY, name=PARQUET),
    "RewardBench": Case(_each(lambda q, w, r: {"prompt": q, "chosen": w, "chosen_model": "m", "rejected": r,
        "rejected_model": "n", "subset": "alpacaeval-easy", "id": 7}), _XY, name=PARQUET),
    "RewardBench 2": Case(_each(lambda q, w, r: {"id": "7", "prompt": q, "chosen": [w], "rejected": [r, "z", "u"],
        "num_correct": 1, "num_incorrect": 3, "total_completions": 4, "models": ["m", "n", "o", "p"],
        "subset": "Factuality"}), _XY, name=PARQUET),
    # --- data sets: verdicts
    "SHP": Case([{"post_id": "7", "domain": "askculinary_train", "upvote_ratio": 0.98, "history": f"{at}?",
        "c_root_id_A": "a", "c_root_id_B": "b", "score_A": a, "score_B": b, "human_ref_A": "x", "human_ref_B": "y",
        "labels": int(first), "seconds_difference": 9.0, "score_ratio": 2.0} for at, (first, (a,
        b)) in enumerate(zip(_FIRST, ((9, 2), (2, 9), (1, 3), (4, 2)), strict=True))], _XY),
    "PKU-SafeRLHF": Case([{"prompt": f"{at}?", "response_0": "x", "response_1": "y", "is_response_0_safe": False,
        "is_response_1_safe": True, "better_response_id": 0 if first else 1, "safer_response_id": 1} for at,
        first in enumerate(_FIRST)], _XY),
    "HelpSteer2 preference": Case([{"split": "train", "prompt": f"{at}?", "response_1": "x", "response_2": "y",
        "preference_strength": strength, "preference_statement": "Response 2 is better than Response 1.",
        "preference_elaboration": "It is so."} for at, strength in enumerate((-2, 3, 1, -1, 0))], _XY,
        left_out=["a tie"], unread=["preference_statement", "preference_elaboration"]),
    "HelpSteer3": Case([{"domain": "stem", "language": "english", "context": [user("9?"), answer("z"), user(f"{at}?")],
        "response1": "x", "response2": "y", "overall_preference": strength,
        "individual_preference": [{"score": -strength, "reasoning": "Response 2.", "feedback1": "a"}]} for at,
        strength in enumerate((-3, 2, 1, -1, 0))], [(turns("9?", "z", q), w, r) for q, w, r in _XY], left_out=["a tie"],
        unread=["individual_preference"]),
    "AlpacaEval annotations": Case([{"instruction": f"{at}?", "output_1": "x", "generator_1": "m", "output_2": "y",
        "generator_2": "n", "dataset": "vicuna", "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "preference": preference, "raw_completion": {"text": "m"}, "time_per_example": 1.0, "price_per_example": 0.1}
        for at, preference in enumerate((1.01, 1.99, 2.0, 1, 1.5))], _XY, left_out=["a tie"], name=JSON),
    "AlpacaFarm": Case([{"instruction": "Say:", "input": f"{at}", "output_1": "x", "output_2": "y", "preference": 1
        if first else 2} for at, first in enumerate(_FIRST)], [(f"Say:\n{at}", *_sides(first)) for at,
        first in enumerate(_FIRST)], name=JSON),
    "chatbot_arena_conversations": Case([{"question_id": "7", "model_a": "m", "model_b": "n", "winner": winner,
        "judge": "arena_user_7", "conversation_a": _whole(f"{at}?", "x"), "conversation_b": _whole(f"{at}?", "y"),
        "turn": 1, "anony": True, "language": "English", "tstamp": 1.0, "toxic_chat_tag": {"flagged": False}} for at,
        winner in enumerate(("model_a", "model_b", "model_b", "model_a", "tie", "tie (bothbad)"))], _BY_TURNS,
        left_out=["a tie", "a tie"], name=PARQUET),
    "arena-human-preference-140k": Case([{"id": "7", "model_a": "m", "model_b": "n", "winner": winner,
        "evaluation_order": 1, "conversation_a": [turn("user", parts(f"{at}?")), turn("assistant", parts("x"))],
        "conversation_b": [turn("user", parts(f"{at}?")), turn("assistant", parts("y"))],
        "category_tag": {"math": False}, "language": "en", "is_code": False} for at, winner in enumerate(("model_a",
        "model_b", "model_b", "model_a", "tie", "both_bad"))], _BY_TURNS, left_out=["a tie", "a tie"], name=PARQUET),
    "MT-bench judgments": Case([{"question_id": 81, "model_a": "m", "model_b": "n", "winner": winner,
        "judge": "author_2", "conversation_a": chat(f"{at}?", "x", "More?", "xx"), "conversation_b": chat(f"{at}?", "y",
        "More?", "yy"), "turn": 1} for at, winner in enumerate(("model_a", "model_b", "model_b", "model_a", "tie"))],
        _BY_TURNS, left_out=["a tie"], name=PARQUET),
    "lmsys 55k": Case([{"id": 7, "model_a": "m", "model_b": "n", "prompt": json.dumps(["9?", f"{at}?"]),
        "response_a": '["z","x"]', "response_b": '["z","y"]', "winner_model_a": int(first),
        "winner_model_b": int(not first), "winner_tie": 0} for at, first in enumerate(_FIRST)] + [{"id": 7,
        "model_a": "m", "model_b": "n", "prompt": '["4?"]', "response_a": '["x"]', "response_b": '["y"]',
        "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}], [(turns("9?", "z", q), w, r) for q, w, r in _XY],
        left_out=["a tie"], name=CSV),
    "WSDM cup": Case([{"id": "7", "prompt": f"{at}?", "response_a": "x", "response_b": "y", "model_a": "m",
        "model_b": "n", "winner": "model_a" if first else "model_b", "language": "English"} for at,
        first in enumerate(_FIRST)], _XY, name=PARQUET),
    "winner by the model's name": Case([{"question": f"{at}?", "answer_1": "x", "answer_2": "y", "model_1": "llama-2",
        "model_2": "llama-1", "winner": "llama-2" if first else "llama-1"} for at, first in enumerate(_FIRST)], _XY),
    "JudgeBench": Case([{"pair_id": "7", "original_id": "6", "source": "mmlu-pro", "question": f"{at}?",
        "response_model": "m", "response_A": "x", "response_B": "y", "label": "A>B" if first else "B>A"} for at,
        first in enumerate(_FIRST)], _XY),
    "OffsetBias": Case([{"instruction": f"{at}?", "output_1": "x", "output_2": "y", "label": 1 if first else 2,
        "dataset": "d", "id": 7} for at, first in enumerate(_FIRST)], _XY),
    "webgpt comparisons": Case([{"question": {"dataset": "eli5", "id": "7", "full_text": f"{at}?"},
        "quotes_0": {"title": ["t"], "extract": ["e"]}, "answer_0": "x", "tokens_0": {"prefix": [1]}, "score_0": a,
        "quotes_1": {"title": ["t"], "extract": ["e"]}, "answer_1": "y", "tokens_1": {"prefix": [1]}, "score_1": -a}
        for at, a in enumerate((1.0, -0.5, -1.0, 0.25, 0.0))], _XY, left_out=["a tie"], name=PARQUET),
    "summarize from feedback": Case([{"info": {"id": "7", "post": f"{at}?", "title": "Help", "subreddit": "r",
        "site": None, "article": None}, "summaries": [{"text": "x", "policy": "m", "note": None}, {"text": "y",
        "policy": "n", "note": None}], "choice": 0 if first else 1, "worker": "w", "batch": "b", "split": "train",
        "extra": {"confidence": 7}} for at, first in enumerate(_FIRST)], _XY),
    # --- data sets: several answers
    "UltraFeedback": Case([{"source": "evol", "instruction": f"{at}?", "models": ["m", "n", "o"],
        "correct_answers": ["None"], "completions": [{"annotations": {"honesty": {"Rating": "5",
        "Rationale": "It is so."}}, "custom_system_prompt": "Be kind.", "model": "m", "principle": "helpfulness",
        "response": text, "critique": "It is so.", "overall_score": score, "fine-grained_score": -score
        if score else 9.0} for text, score in (("z", None), ("x", a), ("y", b))]} for at, (a, b) in enumerate(((8.5,
        3.0), (1.0, 2.0), (3.0, 7.0), (4.0, 1.0), (5.0, 5.0)))], _XY, left_out=["its answers are level"],
        unread=["completions.custom_system_prompt"]),
    "UltraFeedback, fine-grained scores alone": Case(_judged(lambda q, a, b: {"instruction": q,
        "completions": [{"response": "x", "fine-grained_score": a}, {"response": "y", "fine-grained_score": b}]}, 4.5,
        "1.25"), _XY),
    "Nectar": Case([{"prompt": f"\n\nHuman: {at}?\n\nAssistant: ", "answers": [{"answer": "x", "model": "m", "rank": a},
        {"answer": "y", "model": "n", "rank": b}], "turns": 1, "num_responses": 2, "source": ["s"],
        "good_natured": True} for at, (a, b) in enumerate(((1.0, 2.0), (2.0, 1.0), (7.0, 3.0), (1.0, 7.0)))],
        [(f"\n\nHuman: {q}\n\nAssistant: ", w, r) for q, w, r in _XY], name=PARQUET),
    "distilabel": Case(_judged(lambda q, a, b: {"input": q, "generation_model": ["m", "n"], "generations": ["x", "y"],
        "rating": [a, b], "rationale": "It is so."}, 9.0, 2.0), _XY, unread=["rationale"]),
    "HelpSteer2": Case([{"prompt": f"{at}?", "response": text, "helpfulness": help_, "correctness": 4 - help_,
        "coherence": 4, "complexity": 2, "verbosity": 4 - help_} for at, first in enumerate(_FIRST) for text,
        help_ in zip("xy", _answers(first, 4, 1), strict=True)], _XY, name=CSV),
    "scored outputs": Case([{"instruction": f"{at}?", "output": text, "score": score} for at, first in enumerate(_FIRST)
        for text, score in zip("xy", _answers(first, 0.9, 0.1), strict=True)], _XY),
    "stack-exchange-preferences": Case(_judged(lambda q, a, b: {"qid": 7, "question": q, "answers": [{"answer_id": 1,
        "author": "a", "pm_score": a, "selected": False, "text": "x"}, {"answer_id": 2, "author": "b", "pm_score": b,
        "selected": True, "text": "y"}], "date": "2011"}, 4, -1), _XY, name=PARQUET),
    # --- refused by name
    "OpenAssistant messages": Case([{"message_id": "7", "parent_id": None, "user_id": "u", "text": "0?",
        "role": "prompter", "lang": "en", "rank": None, "message_tree_id": "7", "tree_state": "ready_for_export"},
        *({"message_id": f"{rank}", "parent_id": "7", "user_id": "u", "text": text, "role": "assistant", "lang": "en",
        "rank": rank, "message_tree_id": "7", "tree_state": "ready_for_export"} for rank, text in enumerate("xyz"))],
        refused="looks like OpenAssistant's messages"),
    "OpenAssistant trees": Case([{"message_tree_id": "7", "tree_state": "ready_for_export",
        "prompt": {"message_id": "7", "text": f"{at}?", "role": "prompter", "replies": [{"text": "x",
        "role": "assistant", "rank": 0, "replies": []}]}} for at in range(4)],
        refused="looks like OpenAssistant's trees"),
    "red-team attempts": Case([{"min_harmlessness_score_transcript": -1.5,
        "transcript": "\n\nHuman: 0?\n\nAssistant: x", "model_type": "rlhf", "rating": 4.0,
        "task_description": "Be bad to it.", "tags": None} for _ in range(4)], refused="looks like red-team attempts"),
    "steps with labels": Case([{"prompt": f"{at}?", "completions": ["First.", "Then."], "labels": [True, False]}
        for at in range(4)], refused="looks like steps with labels"),
    "Preference-Collection (Prometheus)": Case([{"orig_criteria": "c", "orig_instruction": f"{at}?",
        "orig_response_A": "x", "orig_response_B": "y", "orig_preference": "A", "orig_score_A": "4",
        "orig_score_B": "2", "instruction": "You are a fair judge.", "output": "Feedback: so. [RESULT] A", "input": ""}
        for at in range(4)], refused="looks like a judge's training data"),
    "pictures": Case([{"question": f"{at}?", "chosen": "x", "rejected": "y", "image": {"bytes": "AA", "path": "a.png"}}
        for at in range(4)], refused='"image" is not text'),
    "pictures by a file's name": Case([{"prompt": f"{at}?", "chosen": "x", "rejected": "y", "img_path": "7.jpg"}
        for at in range(4)], refused='"img_path" is not text'),
    "pictures by a column of files": Case([{"prompt": f"{at}?", "chosen": "x", "rejected": "y", "file_name": "a/7.PNG"}
        for at in range(4)], refused='"file_name" is not text'),
    "sound as datasets keeps it": Case([{"prompt": f"{at}?", "chosen": "x", "rejected": "y",
        "clip": {"array": [0.5], "sampling_rate": 16000}} for at in range(4)], refused='"clip" is not text'),
    "Step-DPO": Case([{"dataset": "d", "prompt": f"{at}?", "prefix": "Step 1:", "initial_reason_steps": "Step 1: so. ",
        "chosen": "x", "rejected": "y", "full_chosen": "Step 1: so. x", "full_rejected": "Step 1: so. y",
        "answer": "7"} for at in range(4)], refused='go on from "initial_reason_steps"'),
    "sides that name answers": Case([{"prompt": f"{at}?", "response_a": "x", "response_b": "y",
        "chosen": f"response_{w}", "rejected": f"response_{r}"} for at, (w, r) in enumerate((("a", "b"), ("b", "a")))],
        refused='"chosen" and "rejected" name'),
    "sides that name answers by letter": Case([{"prompt": f"{at}?", "completion_a": "x", "completion_b": "y",
        "chosen": w, "rejected": r} for at, (w, r) in enumerate((("A", "B"), ("B", "A")))],
        refused='"chosen" and "rejected" name'),
    "sides that name who answered": Case([{"prompt": f"{at}?", "response_1": "x", "response_2": "y", "model_1": "m-2",
        "model_2": "m-1", "chosen": w, "rejected": r} for at, (w, r) in enumerate((("m-2", "m-1"), ("m-1", "m-2")))],
        refused='name the answers "response_1" and "response_2"'),
    "sides that name answers, by --columns": Case(_voted(lambda q, v: {"prompt": q, "response_a": "x",
        "response_b": "y", "chosen": v, "rejected": "B" if v == "A" else "A"}, "A", "B"), _XY,
        asked=Asked(columns={"winner": "chosen", "other": "rejected"})),
}
# fmt: on
