"""Every shape that people's rows have is recognised by itself and read exactly; the right rows were written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairtune.cli import main
from pairtune.data import listing
from pairtune.data.asked import Asked
from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt
from pairtune.data.shapes import BY_NAME, TABLE
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.errors import InputError
from tests.written import write

pytestmark = pytest.mark.usefixtures("inside")


def message_of(read: Any, source: str, **asked: Any) -> str:
    with pytest.raises(InputError) as error:
        read(source, asked=Asked(**asked))
    assert "\n" not in str(error.value)
    return str(error.value)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def asked(*texts: str, system: str = "") -> tuple[Message, ...]:
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
    return (*([Message("system", system)] if system else []), *turns)


TOOLS = [{"type": "function", "function": {"name": "look_up"}}]

# name: rows as people have them, pairs as (prompt, chosen, rejected), what is said of the shape
PAIRED: dict[str, tuple[list[Any], list[tuple[Any, str, str]], str]] = {
    "TRL, text": (
        [
            {"prompt": "The sky", "chosen": " is blue.", "rejected": " is green."},
            {"prompt": "Grass", "chosen": " is green.", "rejected": " is blue."},
            {"prompt": "Snow, they say,", "chosen": " is white.", "rejected": " is warm."},
            {"prompt": "2+2", "chosen": "=4", "rejected": "=5"},
        ],
        [
            ("The sky", " is blue.", " is green."),
            ("Grass", " is green.", " is blue."),
            ("Snow, they say,", " is white.", " is warm."),
            ("2+2", "=4", "=5"),
        ],
        "prompt, chosen, rejected, 4 rows",
    ),
    "TRL, turns, answers apart": (
        [
            {"prompt": [user("Sky?")], "chosen": [answer("Blue.")], "rejected": [answer("Green.")]},
            {
                "prompt": [user("Sky?"), answer("Blue."), user("Why?")],
                "chosen": [answer("Rayleigh.")],
                "rejected": [answer("God.")],
            },
            {
                "prompt": [{"role": "system", "content": "Be brief."}, user("Sky?")],
                "chosen": [answer("Blue.")],
                "rejected": [answer("It depends.")],
            },
            {"prompt": "Grass?", "chosen": [answer("Green.")], "rejected": [answer("Blue.")]},
        ],
        [
            (asked("Sky?"), "Blue.", "Green."),
            (asked("Sky?", "Blue.", "Why?"), "Rayleigh.", "God."),
            (asked("Sky?", system="Be brief."), "Blue.", "It depends."),
            (asked("Grass?"), "Green.", "Blue."),
        ],
        "prompt, chosen, rejected, 4 rows",
    ),
    "TRL, turns, prompt implicit": (
        [
            {"chosen": [user(f"Sky {i}?"), answer("Blue.")], "rejected": [user(f"Sky {i}?"), answer("Green.")]}
            for i in range(3)
        ]
        + [
            {
                "chosen": [user("Sky?"), answer("Blue."), user("Sure?"), answer("Yes.")],
                "rejected": [user("Sky?"), answer("Blue."), user("Sure?"), answer("No.")],
            }
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(3)]
        + [(asked("Sky?", "Blue.", "Sure?"), "Yes.", "No.")],
        "two whole dialogues, 4 rows",
    ),
    "TRL, text, prompt implicit": (
        [
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            {"chosen": "The old sun sets late", "rejected": "The old sun settles early"},  # never inside a word
            {"chosen": "Q: Two and two?\nA: 4", "rejected": "Q: Two and two?\nA: 5"},
            {"chosen": "It is known to end", "rejected": "It is known"},
        ],
        [
            ("The sky is", " blue.", " green."),
            ("The old sun", " sets late", " settles early"),
            ("Q: Two and two?\nA:", " 4", " 5"),
        ],
        "two texts that begin with their prompt, 4 rows: the beginning that both sides share is the prompt",
    ),
    "hh-rlhf": (
        [
            {
                "chosen": f"\n\nHuman: Sky {i}?\n\nAssistant: Blue.",
                "rejected": f"\n\nHuman: Sky {i}?\n\nAssistant: Green.",
            }
            for i in range(4)
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(4)],
        "two whole dialogues, 4 rows",
    ),
    "UltraFeedback, binarised": (
        [
            {
                "prompt": f"Sky {i}?",
                "prompt_id": "a1",
                "chosen": [user(f"Sky {i}?"), answer("Blue.")],
                "rejected": [user(f"Sky {i}?"), answer("Green.")],
                "messages": [user(f"Sky {i}?"), answer("Blue.")],
                "score_chosen": 8.5,
                "score_rejected": 4.0,
            }
            for i in range(4)
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(4)],
        "prompt, chosen, rejected, 4 rows",
    ),
    "LLaMA-Factory ranking, Alpaca": (
        [
            {"instruction": "Name the colour.", "input": "sky", "chosen": "Blue.", "rejected": "Green."},
            {"instruction": "Name the colour.", "input": "", "chosen": "Of what?", "rejected": "Green."},
            {"instruction": "Grass?", "chosen": "Green.", "rejected": "Blue.", "system": "Be brief."},
            {
                "instruction": "Why?",
                "input": "",
                "chosen": "Rayleigh.",
                "rejected": "God.",
                "history": [["Sky?", "Blue."]],
            },
        ],
        [
            ("Name the colour.\nsky", "Blue.", "Green."),
            ("Name the colour.", "Of what?", "Green."),
            (asked("Grass?", system="Be brief."), "Green.", "Blue."),
            (asked("Sky?", "Blue.", "Why?"), "Rayleigh.", "God."),
        ],
        "LLaMA-Factory ranking, 4 rows: instruction+input is the prompt",
    ),
    "LLaMA-Factory ranking, outputs": (
        [{"instruction": f"Sky {i}?", "input": "", "output": ["Blue.", "Green."]} for i in range(4)],
        [(f"Sky {i}?", "Blue.", "Green.") for i in range(4)],
        "LLaMA-Factory ranking, two outputs, the better one first, 4 rows: instruction is the prompt, "
        "output 1 is chosen",
    ),
    "LLaMA-Factory ranking, ShareGPT": (
        [
            {"conversations": [human("Sky?")], "chosen": gpt("Blue."), "rejected": gpt("Green.")},
            {
                "conversations": [human("Sky?"), gpt("Blue."), human("Why?")],
                "chosen": gpt("Rayleigh."),
                "rejected": gpt("God."),
                "system": "Be brief.",
            },
            {
                "conversations": [human("Grass?")],
                "chosen": gpt("Green."),
                "rejected": gpt("Blue."),
                "tools": json.dumps(TOOLS),
            },
            {
                "conversations": [{"from": "system", "value": "Be kind."}, human("Snow?")],
                "chosen": gpt("White."),
                "rejected": gpt("Warm."),
            },
        ],
        [
            (asked("Sky?"), "Blue.", "Green."),
            (asked("Sky?", "Blue.", "Why?", system="Be brief."), "Rayleigh.", "God."),
            (asked("Grass?"), "Green.", "Blue."),
            (asked("Snow?", system="Be kind."), "White.", "Warm."),
        ],
        "a dialogue and two answers to it (LLaMA-Factory, axolotl), 4 rows: conversations is the prompt",
    ),
    "axolotl, chat_template": (
        [{"messages": [user(f"Sky {i}?")], "chosen": answer("Blue."), "rejected": answer("Green.")} for i in range(4)],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(4)],
        "a dialogue and two answers to it (LLaMA-Factory, axolotl), 4 rows: messages is the prompt",
    ),
    "axolotl, chatml.intel (orca pairs)": (
        [
            {"system": "Be brief.", "question": "Sky?", "chosen": "Blue.", "rejected": "Green."},
            {"system": "", "question": "Grass?", "chosen": "Green.", "rejected": "Blue."},
            {"system": None, "question": "Snow?", "chosen": "White.", "rejected": "Warm."},
            {"system": "Be kind.", "question": "Sea?", "chosen": "Blue, dear.", "rejected": "Wet."},
        ],
        [
            (asked("Sky?", system="Be brief."), "Blue.", "Green."),
            (asked("Grass?"), "Green.", "Blue."),
            (asked("Snow?"), "White.", "Warm."),
            (asked("Sea?", system="Be kind."), "Blue, dear.", "Wet."),
        ],
        "a prompt and two sides by other names, 4 rows: question is the prompt",
    ),
    "axolotl, chatml.argilla; NeMo-Aligner": (
        [
            {"prompt": f"Sky {i}?", "chosen_response": "Blue.", "rejected_response": "Green.", "chosen_reward": 1}
            for i in range(4)
        ],
        [(f"Sky {i}?", "Blue.", "Green.") for i in range(4)],
        "a prompt and two sides by other names, 4 rows: chosen_response is chosen, rejected_response is rejected",
    ),
    "StackExchange pairs": (
        [{"question": f"Sky {i}?", "response_j": "Blue.", "response_k": "Green."} for i in range(4)],
        [(f"Sky {i}?", "Blue.", "Green.") for i in range(4)],
        "a prompt and two sides by other names, 4 rows: question is the prompt, response_j is chosen, "
        "response_k is rejected",
    ),
    "torchtune, chosen and rejected conversations": (
        [
            {
                "chosen_conversations": [user(f"Sky {i}?"), answer("Blue.")],
                "rejected_conversations": [user(f"Sky {i}?"), answer("Green.")],
            }
            for i in range(4)
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(4)],
        "a prompt and two sides by other names, 4 rows: chosen_conversations is chosen, "
        "rejected_conversations is rejected",
    ),
    "OpenAI preference": (
        [
            {
                "input": {"messages": [user(f"Sky {i}?")], "tools": [], "parallel_tool_calls": True},
                "preferred_output": [answer("Blue.")],
                "non_preferred_output": [answer("Green.")],
            }
            for i in range(3)
        ]
        + [
            {
                "input": {"messages": [user("Sky?"), answer("Blue."), user("Why?")], "tools": TOOLS},
                "preferred_output": [answer("Rayleigh.")],
                "non_preferred_output": [answer("God.")],
            }
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(3)]
        + [(asked("Sky?", "Blue.", "Why?"), "Rayleigh.", "God.")],
        "OpenAI preference fine-tuning, 4 rows: input.messages is the prompt, preferred_output is chosen, "
        "non_preferred_output is rejected",
    ),
    "ms-swift, a rejected response": (
        [
            {"messages": [user("Sky?"), answer("Blue.")], "rejected_response": "Green."},
            {
                "messages": [user("Sky?"), answer("Blue."), user("Why?"), answer("Rayleigh.")],
                "rejected_response": "God.",
            },
            {
                "messages": [{"role": "system", "content": "Be brief."}, user("Grass?"), answer("Green.")],
                "rejected_response": "It depends.",
            },
            {"messages": [user("Snow?"), answer("White.")], "rejected_response": "Warm."},
        ],
        [
            (asked("Sky?"), "Blue.", "Green."),
            (asked("Sky?", "Blue.", "Why?"), "Rayleigh.", "God."),
            (asked("Grass?", system="Be brief."), "Green.", "It depends."),
            (asked("Snow?"), "White.", "Warm."),
        ],
        "a dialogue and a rejected answer (ms-swift), 4 rows: the end of messages is chosen, "
        "rejected_response is rejected",
    ),
    "ms-swift, rejected messages": (
        [
            {
                "messages": [user(f"Sky {i}?"), answer("Blue.")],
                "rejected_messages": [user(f"Sky {i}?"), answer("Green.")],
            }
            for i in range(4)
        ],
        [(asked(f"Sky {i}?"), "Blue.", "Green.") for i in range(4)],
        "a dialogue and a rejected answer (ms-swift), 4 rows: the end of messages is chosen, "
        "rejected_messages is rejected",
    ),
    "verdicts by a letter": (
        [
            {"prompt": "1?", "response_a": "x", "response_b": "y", "winner": "A"},
            {"prompt": "2?", "response_a": "x", "response_b": "y", "winner": "b"},
            {"prompt": "3?", "response_a": "x", "response_b": "y", "winner": "response_b"},
            {"prompt": "4?", "response_a": "x", "response_b": "y", "winner": "model_a"},
            {"prompt": "5?", "response_a": "x", "response_b": "y", "winner": "tie"},
            {"prompt": "6?", "response_a": "x", "response_b": "y", "winner": "tie (bothbad)"},
        ],
        [("1?", "x", "y"), ("2?", "y", "x"), ("3?", "y", "x"), ("4?", "x", "y")],
        "two answers and a verdict, 6 rows: the better of response_a and response_b by winner is chosen",
    ),
    "verdicts by 1 and 2": (
        [
            {"question": "1?", "answer_1": "x", "answer_2": "y", "preferred": 1},
            {"question": "2?", "answer_1": "x", "answer_2": "y", "preferred": "2"},
            {"question": "3?", "answer_1": "x", "answer_2": "y", "preferred": 2.0},
            {"question": "4?", "answer_1": "x", "answer_2": "y", "preferred": "answer_1"},
        ],
        [("1?", "x", "y"), ("2?", "y", "x"), ("3?", "y", "x"), ("4?", "x", "y")],
        "two answers and a verdict, 4 rows: question is the prompt, the better of answer_1 and answer_2 by preferred "
        "is chosen",
    ),
    "PKU-SafeRLHF": (
        [
            {
                "prompt": f"{i}?",
                "response_0": "x",
                "response_1": "y",
                "is_response_0_safe": True,
                "better_response_id": better,
                "safer_response_id": 0,
            }
            for i, better in enumerate((0, 1, 1, 0))
        ],
        [("0?", "x", "y"), ("1?", "y", "x"), ("2?", "y", "x"), ("3?", "x", "y")],
        "two answers and a verdict, 4 rows: the better of response_0 and response_1 by better_response_id is chosen",
    ),
    "SHP, whose label is 1 where A is better": (
        [
            {"history": f"{i}?", "human_ref_A": "x", "human_ref_B": "y", "labels": label, "score_A": 3, "score_B": 9}
            for i, label in enumerate((1, 0, 0, 1))
        ],
        [("0?", "x", "y"), ("1?", "y", "x"), ("2?", "y", "x"), ("3?", "x", "y")],
        "two answers and a verdict, 4 rows: history is the prompt, the better of human_ref_A and human_ref_B by labels "
        "is chosen",
    ),
    "HelpSteer2 preference": (
        [
            {"prompt": f"{i}?", "response_1": "x", "response_2": "y", "preference_strength": strength}
            for i, strength in enumerate((-3, 2, 0, 1))
        ],
        [("0?", "x", "y"), ("1?", "y", "x"), ("3?", "y", "x")],
        "two answers and a verdict, 4 rows: the better of response_1 and response_2 by preference_strength is chosen",
    ),
    "HelpSteer3": (
        [
            {
                "context": [user("Sky?"), answer("Blue."), user(f"{i}?")],
                "response1": "x",
                "response2": "y",
                "overall_preference": strength,
            }
            for i, strength in enumerate((-3, 3, -1, 1))
        ],
        [
            (asked("Sky?", "Blue.", "0?"), "x", "y"),
            (asked("Sky?", "Blue.", "1?"), "y", "x"),
            (asked("Sky?", "Blue.", "2?"), "x", "y"),
            (asked("Sky?", "Blue.", "3?"), "y", "x"),
        ],
        "two answers and a verdict, 4 rows: context is the prompt, the better of response1 and response2 by "
        "overall_preference is chosen",
    ),
    "AlpacaEval annotations": (
        [
            {"instruction": f"{i}?", "output_1": "x", "output_2": "y", "annotator": "gpt", "preference": preference}
            for i, preference in enumerate((1, 2.0, 1.5, 1.2, 1.99))
        ],
        [("0?", "x", "y"), ("1?", "y", "x"), ("3?", "x", "y"), ("4?", "y", "x")],
        "two answers and a verdict, 5 rows: instruction is the prompt, the better of output_1 and output_2 by "
        "preference is chosen",
    ),
    "arena conversations": (
        [
            {
                "model_a": "m",
                "model_b": "n",
                "winner": winner,
                "conversation_a": [user(f"{i}?"), answer("x")],
                "conversation_b": [user(f"{i}?"), answer("y")],
                "turn": 1,
            }
            for i, winner in enumerate(("model_a", "model_b", "tie", "tie (bothbad)", "model_b"))
        ],
        [(asked("0?"), "x", "y"), (asked("1?"), "y", "x"), (asked("4?"), "y", "x")],
        "two answers and a verdict, 5 rows: the better of conversation_a and conversation_b by winner is chosen",
    ),
    "arena votes, texts in lists": (
        [
            {
                "prompt": json.dumps([f"{i}?"]),
                "response_a": '["x"]',
                "response_b": '["y"]',
                "winner_model_a": a,
                "winner_model_b": b,
                "winner_tie": 1 - a - b,
            }
            for i, (a, b) in enumerate(((1, 0), (0, 1), (0, 0), (0, 1)))
        ],
        [(asked("0?"), "x", "y"), (asked("1?"), "y", "x"), (asked("3?"), "y", "x")],
        "two answers and a verdict, 4 rows: the better of response_a and response_b by the votes is chosen, prompt, a "
        "list of what the user said, is the prompt",
    ),
    "two scores": (
        [
            {"prompt": f"{i}?", "response_a": "x", "response_b": "y", "score_a": a, "score_b": b}
            for i, (a, b) in enumerate(((9, 2), (1, 1.5), (3, 3), ("2", "4")))
        ],
        [("0?", "x", "y"), ("1?", "y", "x"), ("3?", "y", "x")],
        "two answers and a verdict, 4 rows: the better of response_a and response_b by score_a and score_b is chosen",
    ),
    "UltraFeedback": (
        [
            {
                "source": "evol",
                "instruction": f"{i}?",
                "models": ["m", "n", "o"],
                "completions": [
                    {"model": model, "response": text, "overall_score": score, "critique": "It is so."}
                    for model, text, score in zip("mno", "xyz", scores, strict=True)
                ],
            }
            for i, scores in enumerate(((7.5, 8, 3), (1, 2, 3), (5, 5, 5), (4, 4, 2)))
        ],
        [("0?", "y", "z"), ("1?", "z", "x"), ("3?", "x", "z")],
        "several answers with scores or ranks, 4 rows: instruction is the prompt, the better of completions by "
        "overall_score is chosen",
    ),
    "Nectar, ranks": (
        [
            {
                "prompt": f"\n\nHuman: {i}?\n\nAssistant: ",
                "answers": [
                    {"answer": text, "model": "m", "rank": rank} for text, rank in zip("xyz", ranks, strict=True)
                ],
            }
            for i, ranks in enumerate(((1, 2, 3), (3.0, 1.0, 2.0), (2, 3, 1), (1, 3, 2)))
        ],
        [
            ("\n\nHuman: 0?\n\nAssistant: ", "x", "z"),
            ("\n\nHuman: 1?\n\nAssistant: ", "y", "x"),
            ("\n\nHuman: 2?\n\nAssistant: ", "z", "y"),
            ("\n\nHuman: 3?\n\nAssistant: ", "x", "y"),
        ],
        "several answers with scores or ranks, 4 rows: the better of answers by rank is chosen",
    ),
    "NeMo RL, ranked completions": (
        [
            {
                "context": [user(f"{i}?")],
                "completions": [
                    {"rank": rank, "completion": [answer(text)]} for text, rank in (("x", i % 2), ("y", 1 - i % 2))
                ],
            }
            for i in range(4)
        ],
        [(asked("0?"), "x", "y"), (asked("1?"), "y", "x"), (asked("2?"), "x", "y"), (asked("3?"), "y", "x")],
        "several answers with scores or ranks, 4 rows: context is the prompt, the better of completions by rank is "
        "chosen",
    ),
    "distilabel, generations and ratings": (
        [
            {"instruction": f"{i}?", "generations": ["x", "y", "z"], "ratings": ratings}
            for i, ratings in enumerate(([3, 5, 1], [None, 2, 4], [1, 1, 1], [5.0, 4.5, 4.0]))
        ],
        [("0?", "y", "z"), ("1?", "z", "y"), ("3?", "x", "z")],
        "several answers with scores or ranks, 4 rows: instruction is the prompt, the better of generations by "
        "ratings is chosen",
    ),
    "HelpSteer, an answer a row": (
        [
            {"prompt": "0?", "response": "x", "helpfulness": 4, "correctness": 4},
            {"prompt": "0?", "response": "y", "helpfulness": 1, "correctness": 4},
            {"prompt": "1?", "response": "x", "helpfulness": 2, "correctness": 4},
            {"prompt": "1?", "response": "y", "helpfulness": 3, "correctness": 4},
            {"prompt": "2?", "response": "x", "helpfulness": 3, "correctness": 4},
            {"prompt": "2?", "response": "y", "helpfulness": 3, "correctness": 1},
        ],
        [("0?", "x", "y"), ("1?", "y", "x")],
        "an answer and its score a row, those of one prompt together, 6 rows: the better of answers by helpfulness is "
        "chosen: 2 pairs",
    ),
}


@pytest.mark.parametrize("name", PAIRED)
def test_pairs_as_people_have_them(name: str) -> None:
    rows, expected, told = PAIRED[name]
    read = read_pairs(write(*rows))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in read.rows] == expected
    assert read.told == told
    assert len(expected) + len(read.skipped) == len(rows) or name.startswith("HelpSteer, an")
    assert not has_labels("d.jsonl")
    prompts = dict.fromkeys(row.prompt for row in read_prompts("d.jsonl").rows)
    assert [prompt for prompt in prompts if prompt in {prompt for prompt, *_ in expected}] == [
        prompt for prompt, *_ in expected
    ]


LABELS: dict[str, tuple[list[Any], list[tuple[Any, str, bool]], str]] = {
    "TRL": (
        [
            {"prompt": "Sky?", "completion": "Blue.", "label": True},
            {"prompt": "Sky?", "completion": "Green.", "label": False},
            {"prompt": [user("Sky?")], "completion": [answer("Blue.")], "label": 1},
            {"prompt": "Grass?", "completion": "Blue.", "label": "-1"},
        ],
        [
            ("Sky?", "Blue.", True),
            ("Sky?", "Green.", False),
            (asked("Sky?"), "Blue.", True),
            ("Grass?", "Blue.", False),
        ],
        "prompt, response, label, 4 rows: completion is response",
    ),
    "LLaMA-Factory and ms-swift": (
        [
            {"messages": [user("Sky?"), answer("Blue.")], "kto_tag": True},
            {"messages": [user("Sky?"), answer("Green.")], "kto_tag": False},
            {"messages": [human("Grass?"), gpt("Green.")], "kto_tag": True},
            {"messages": [user("Sky?"), answer("Blue."), user("Why?"), answer("God.")], "kto_tag": False},
        ],
        [
            (asked("Sky?"), "Blue.", True),
            (asked("Sky?"), "Green.", False),
            (asked("Grass?"), "Green.", True),
            (asked("Sky?", "Blue.", "Why?"), "God.", False),
        ],
        "a response and a label by other names, 4 rows: messages is response, kto_tag is label",
    ),
    "thumbs": (
        [
            {"instruction": "Name the colour.", "input": "sky", "output": "Blue.", "thumbs": "up"},
            {"instruction": "Name the colour.", "input": "", "output": "Green.", "thumbs": "down"},
            {"instruction": "Grass?", "output": "Green.", "thumbs": "up"},
            {"instruction": "Snow?", "output": "Warm.", "thumbs": "DOWN"},
        ],
        [
            ("Name the colour.\nsky", "Blue.", True),
            ("Name the colour.", "Green.", False),
            ("Grass?", "Green.", True),
            ("Snow?", "Warm.", False),
        ],
        "a response and a label by other names, 4 rows: instruction+input is the prompt, output is response, "
        "thumbs is label",
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_as_people_have_them(name: str) -> None:
    rows, expected, told = LABELS[name]
    read = read_labelled(write(*rows))
    assert [(row.prompt, row.response, row.label) for row in read.rows] == expected
    assert read.told == told
    assert has_labels("d.jsonl")


def test_labels_that_are_numbers_need_a_threshold() -> None:
    source = write(*({"prompt": "Sky?", "response": "Blue.", "label": label} for label in (0.2, 0.5, "0.9", 1)))
    said = message_of(read_labelled, source)
    assert '"label" is 0.2; it must be true (desirable) or false; --label-threshold N makes it so from N on' in said
    read = read_labelled(source, asked=Asked(label_threshold=0.5))
    assert [row.label for row in read.rows] == [False, True, True, True]
    assert "label from 0.5 on is label" in read.told


def test_demonstrations_and_prompts_as_people_have_them() -> None:
    rows = [
        {"instruction": "Name the colour.", "input": "sky", "output": "Blue."},
        {"instruction": "Grass?", "input": "", "output": "Green.", "system": "Be brief."},
    ]
    assert read_demonstrations(write(*rows)).rows == [
        Demonstration("Name the colour.\nsky", "Blue.", 1),
        Demonstration(asked("Grass?", system="Be brief."), "Green.", 2),
    ]
    assert read_prompts("d.jsonl").rows == [
        Prompt("Name the colour.\nsky", 1),
        Prompt(asked("Grass?", system="Be brief."), 2),
    ]
    assert read_demonstrations(write({"conversations": [human("Sky?"), gpt("Blue.")]})).rows == [
        Demonstration(asked("Sky?"), "Blue.", 1)
    ]
    assert read_demonstrations(write({"question": "Sky?", "answer": "Blue."})).rows == [
        Demonstration("Sky?", "Blue.", 1)
    ]
    assert read_prompts(write({"question": "Sky?"}, {"question": "Grass?"})).rows == [
        Prompt("Sky?", 1),
        Prompt("Grass?", 2),
    ]
    assert read_demonstrations(write(*PAIRED["UltraFeedback"][0])).rows[0] == Demonstration("0?", "y", 1)


@pytest.mark.parametrize(
    ("pair_up", "margin", "expected"),
    [
        ("best-worst", 0, ["ad"]),
        ("best-worst", 7, []),
        ("all", 0, ["ab", "ac", "ad", "bd", "cd"]),  # b and c are level
        ("all", 3, ["ad", "bd", "cd"]),
        ("adjacent", 0, ["ab", "cd"]),
        ("best-rest", 0, ["ab", "ac", "ad"]),
        ("best-rest", 3.5, ["ad"]),
    ],
)
def test_pairs_of_several_answers(pair_up: str, margin: float, expected: list[str]) -> None:
    scored = [{"response": text, "score": score} for text, score in zip("badc", (5, 8, 1, 5), strict=True)]
    other = [{"response": text, "score": score} for text, score in (("x", 9), ("y", 1))]
    source = write({"prompt": "1?", "completions": scored}, {"prompt": "2?", "completions": other})
    read = read_pairs(source, asked=Asked(pair_up=pair_up, min_margin=margin))
    found = [f"{pair.chosen}{pair.rejected}" for pair in read.rows]
    assert found == [*expected, "xy"]
    if len(found) > 2:
        assert read.told.endswith(f": {len(found)} pairs")


def test_near_ties_are_left_out_and_counted() -> None:
    rows = PAIRED["HelpSteer2 preference"][0]
    read = read_pairs(write(*rows), asked=Asked(min_margin=1))
    assert [pair.prompt for pair in read.rows] == ["0?", "1?"]
    assert [(skip.row, skip.reason) for skip in read.skipped] == [(row, "a tie (at most 1 apart)") for row in (3, 4)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"response_a": "x", "response_b": "y", "winner": 0},
            '"winner" is 0; for "response_a" and "response_b" it must',
        ),
        ({"response_1": "x", "response_2": "y", "winner": 0}, "it must be 1 or 2 - if 0 is the first, name them"),
        ({"response_0": "x", "response_1": "y", "winner": 2}, '"winner" is 2; for "response_0" and "response_1" it'),
        ({"response_a": "x", "response_b": "y", "winner": "gpt-4"}, '"winner" is "gpt-4", which names neither'),
        ({"response_a": "x", "response_b": "y", "winner": True}, '"winner" is true or false, which names neither'),
        ({"response_a": "x", "response_b": "y", "score_a": "high", "score_b": 1}, '"score_a" is "high" where a number'),
    ],
)
def test_a_verdict_that_is_not_known_for_certain_is_an_error(row: Any, said: str) -> None:
    assert said in message_of(read_pairs, write({"prompt": "1?"} | row))


def test_numbers_for_answers_with_letters_are_counted_by_all_rows() -> None:
    """1 is the first beside 2, the second beside 0; alone, or beside both, it is nobody's."""

    def chosen(*winners: Any, column: str = "winner") -> Any:
        rows = [{"prompt": f"{i}?", "response_a": "x", "response_b": "y", column: w} for i, w in enumerate(winners)]
        return [pair.chosen for pair in read_pairs(write(*rows)).rows]

    assert chosen(1, 2, "tie", "1") == ["x", "y", "x"]
    assert chosen(1, 0, "0", 1.0) == ["y", "x", "x", "y"]
    assert chosen(2, 2) == ["y", "y"]
    assert chosen(1, 2, column="label") == ["x", "y"]
    assert chosen(1.2, 1.9, 1, column="preference") == ["x", "y", "x"]
    unknown = '"winner" is 1, and no row shows whether that is "response_a" or "response_b"; name them response_0 and'
    for winners in ((1, 1), (1, 0, 2)):
        assert f"d.jsonl line 1: {unknown}" in message_of(read_pairs, write(
            *({"prompt": f"{i}?", "response_a": "x", "response_b": "y", "winner": w} for i, w in enumerate(winners))
        ))  # fmt: skip
    rows = [{"prompt": f"{i}?", "response_a": "x", "response_b": "y", "label": i} for i in (0, 1)]
    assert '"label" is 0; for' in message_of(read_pairs, write(*rows)), "1 may say: yes, the first"


def test_scored_rows_of_another_system_are_of_another_dialogue_and_none_is_lost() -> None:
    def row(score: int, answer: Any, system: str = "s") -> Any:
        return {"prompt": "Sky?", "system": system, "response": answer, "score": score}

    read = read_pairs(write(row(5, "a"), row(1, "b"), row(4, "c", "t"), row(2, "d", "t")))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in read.rows] == [
        (asked("Sky?", system="s"), "a", "b"),
        (asked("Sky?", system="t"), "c", "d"),
    ]
    assert ", 4 rows: " in read.told
    many = [{"prompt": f"{i}?", "response": f"{k}", "score": k} for i in range(20) for k in range(2)]
    read = read_pairs(write(many[0], {"prompt": "0?", "response": None, "score": 3}, *many[1:]))
    assert len(read.rows) == 20
    assert [(skip.row, skip.reason) for skip in read.skipped] == [(2, "it has no answers with scores")]
    assert ", 41 rows: " in read.told


def test_a_dialogue_that_ends_with_its_answer_is_not_answered_twice() -> None:
    turns = [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue."}]
    sides = {"chosen": {"from": "gpt", "value": "Blue."}, "rejected": {"from": "gpt", "value": "Green."}}
    assert read_pairs(write({"conversations": turns} | sides)).rows == [Pair(asked("Sky?"), "Blue.", "Green.", 1)]
    openai: dict[str, Any] = {"input": {"messages": [user("Sky?"), answer("Blue.")]}}
    openai |= {"preferred_output": [answer("Blue.")], "non_preferred_output": [answer("Green.")]}
    assert read_pairs(write(openai)).rows == [Pair(asked("Sky?"), "Blue.", "Green.", 1)]
    sides["chosen"] = {"from": "gpt", "value": "Grey."}
    assert '"conversations" ends with an answer that is not the chosen one' in message_of(
        read_pairs, write({"conversations": turns} | sides)
    )


def test_a_verdict_and_scored_answers_may_stand_beside_a_dialogue() -> None:
    verdict = {"messages": [user("Sky?")], "response_a": "Green.", "response_b": "Blue.", "winner": "b"}
    scored = {
        "messages": [user("Sky?")],
        "completions": [{"response": "Blue.", "score": 2}, {"response": "Green.", "score": 1}],
    }
    for row in (verdict, scored):
        assert read_pairs(write(row)).rows == [Pair(asked("Sky?"), "Blue.", "Green.", 1)]
        ended = row | {"messages": [user("Sky?"), answer("Grey.")]}
        said = message_of(read_pairs, write(ended))
        assert '"messages" ends with an answer, and answers stand beside it; end it before them' in said


def test_a_row_of_another_shape_is_left_out_or_an_error() -> None:
    good = {"prompt": "1?", "response_a": "x", "response_b": "y", "winner": "a"}
    said = message_of(read_pairs, write(good, {"prompt": "1?", "chosen": "x", "rejected": "y"}))
    assert said.startswith("d.jsonl line 2: it is not two answers and a verdict, as the first row is; a source has one")


def test_columns_by_other_names() -> None:
    source = write({"frage": "Sky?", "gut": "Blue.", "schlecht": "Green.", "note": "many words here"})
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    read = read_pairs(source, asked=Asked(columns=columns))
    assert read.rows == [Pair("Sky?", "Blue.", "Green.", 1)]
    assert read.unread == ("note",)
    said = message_of(read_pairs, source, columns=columns | {"chosen": "gutt"})
    assert said == (
        'd.jsonl line 1: no column "gutt"; the columns are "frage", "gut", "schlecht", "note"; did you mean "gut"?'
    )


def test_a_column_of_our_name_gives_way_to_the_one_that_is_renamed_to_it() -> None:
    source = write({"prompt": "id 7", "text": "Sky?", "chosen": "Blue.", "rejected": "Green."})
    assert read_pairs(source, asked=Asked(columns={"prompt": "text"})).rows == [Pair("Sky?", "Blue.", "Green.", 1)]


def test_a_shape_may_be_asked_for_by_name() -> None:
    rows = PAIRED["PKU-SafeRLHF"][0]
    assert read_pairs(write(*rows), asked=Asked(format="verdict")).rows == read_pairs("d.jsonl").rows
    assert message_of(read_pairs, "d.jsonl", format="verdicts") == (
        'format: there is no shape "verdicts"; did you mean "verdict"?'
    )
    assert "d.jsonl: its first row is not two texts that begin" in message_of(read_pairs, "d.jsonl", format="implicit")
    assert message_of(read_pairs, "d.jsonl", format="labels") == "format: labels gives labels, and pairs are needed"


def test_data_of_another_kind_are_told() -> None:
    source = write(*LABELS["thumbs"][0])
    assert message_of(read_pairs, source) == (
        "d.jsonl: looks like a response and a label by other names, which gives labels, and pairs are needed"
    )


def test_demonstrations_where_pairs_are_needed_are_told() -> None:
    assert "looks like instruction and output (Alpaca), which gives demonstrations" in message_of(
        read_pairs, write({"instruction": "Sky?", "input": "", "output": "Blue."})
    )


def test_what_a_shape_does_not_read_is_named() -> None:
    rows = [row | {"context": "It was a grey morning."} for row in PAIRED["LLaMA-Factory ranking, Alpaca"][0][:2]]
    assert read_pairs(write(*rows)).unread == ("context",)
    assert read_demonstrations(write({"prompt": "Sky?", "response": "Green.", "label": False})).unread == ("label",)


def test_a_prompt_by_a_name_that_is_not_known_is_never_passed_over_for_a_shared_beginning() -> None:
    source = write({"aufgabe": "What is two and two?", "chosen": "The answer is 4", "rejected": "The answer is 5"})
    said = 'no column is known to be the prompt; if "aufgabe" is: --columns prompt=aufgabe'
    assert message_of(read_pairs, source) == f"d.jsonl line 1: {said}"
    columns = {"prompt": "aufgabe"}
    assert read_pairs(source, asked=Asked(columns=columns)).rows[0].prompt == "What is two and two?"


def test_a_shared_beginning_that_is_too_short_is_an_error() -> None:
    assert "share only their first 3 characters" in message_of(
        read_pairs, write({"chosen": "The sky", "rejected": "The sea"})
    )


@pytest.mark.parametrize("shape", TABLE, ids=lambda shape: shape.name)
def test_the_example_of_a_shape_is_recognised_as_it(shape: Any) -> None:
    read: Any = {
        "pairs": read_pairs,
        "labels": read_labelled,
        "demonstrations": read_demonstrations,
        "prompts": read_prompts,
    }[shape.gives]
    assert len(shape.example) == 2
    found = read(write(*shape.example))
    assert found.told.startswith(f"{shape.title}, ")
    assert not found.skipped
    assert BY_NAME[shape.name] is shape
    assert isinstance(found.rows[0], Pair | Labelled | Demonstration | Prompt)


def test_answers_to_one_prompt_that_do_not_follow_each_other_are_not_paired_in_silence() -> None:
    rows = [{"prompt": f"{i % 2}?", "response": f"{i}", "helpfulness": i} for i in range(4)]
    assert "one answer with a score (those to one prompt must follow each other)" in message_of(
        read_pairs, write(*rows)
    )


def test_a_label_beside_a_score_is_a_label() -> None:
    source = write({"prompt": "1?", "response": "x", "label": True, "score": 3})
    assert has_labels(source)
    assert read_labelled(source).rows == [Labelled("1?", "x", True, 1)]


def test_the_page_of_shapes_is_written_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "data.md"
    assert page.read_text(encoding="utf-8") == listing.as_page(), "run docs/make_data.py"


def test_the_command_lists_every_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for shape in TABLE:
        at = shown.index(f"{shape.name} ({shape.gives}): {shape.title}")
        assert [line.strip() for line in shown[at + 1 : at + 3]] == list(shape.example)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        # sides that go on from the dialogue by several turns, which may stand at its end as well
        (
            {
                "messages": [user("Sky?")],
                "chosen": [answer("Blue."), user("Sure?"), answer("Yes.")],
                "rejected": [answer("Blue."), user("Sure?"), answer("No.")],
            },
            asked("Sky?", "Blue.", "Sure?"),
        ),
        (
            {
                "messages": [user("Sky?"), answer("Blue."), user("Sure?"), answer("Yes.")],
                "chosen": [answer("Blue."), user("Sure?"), answer("Yes.")],
                "rejected": [answer("Blue."), user("Sure?"), answer("No.")],
            },
            asked("Sky?", "Blue.", "Sure?"),
        ),
        (
            {
                "conversations": [human("Sky?")],
                "chosen_response": [gpt("Blue."), human("Sure?"), gpt("Yes.")],
                "rejected_response": [gpt("Blue."), human("Sure?"), gpt("No.")],
            },
            asked("Sky?", "Blue.", "Sure?"),
        ),
        # sides that begin with all of the dialogue, or are it
        (
            {
                "messages": [user("Sky?")],
                "chosen": [user("Sky?"), answer("Yes.")],
                "rejected": [user("Sky?"), answer("No.")],
            },
            asked("Sky?"),
        ),
        (
            {
                "messages": [user("Sky?"), answer("Yes.")],
                "chosen": [user("Sky?"), answer("Yes.")],
                "rejected": [user("Sky?"), answer("No.")],
            },
            asked("Sky?"),
        ),
        # a system turn that stands before them
        (
            {
                "messages": [{"role": "system", "content": "Be brief."}],
                "chosen": [user("Sky?"), answer("Yes.")],
                "rejected": [user("Sky?"), answer("No.")],
            },
            asked("Sky?", system="Be brief."),
        ),
    ],
)
def test_sides_beside_a_dialogue_are_what_comes_after_it(row: dict[str, Any], prompt: Any) -> None:
    read = read_pairs(write(row))
    assert read.rows == [Pair(prompt, "Yes.", "No.", 1)]
    assert read.unread == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {
                "messages": [user("Grass?")],
                "chosen": [user("Sky?"), answer("Yes.")],
                "rejected": [user("Sky?"), answer("No.")],
            },
            '"messages" is not how the sides begin',
        ),
        (
            {
                "messages": [user("Sky?"), answer("Blue."), user("Sure?"), answer("Maybe.")],
                "chosen": [answer("Blue."), user("Sure?"), answer("Yes.")],
                "rejected": [answer("Blue."), user("Sure?"), answer("No.")],
            },
            '"messages" ends with an answer that is not the chosen one',
        ),
        (
            {
                "messages": [user("Sky?")],
                "chosen": [answer("Blue."), user("Sure?"), answer("Yes.")],
                "rejected": [answer("Grey."), user("Sure?"), answer("No.")],
            },
            '"chosen" and "rejected" have different prompts',
        ),
        (
            {"prompt": [user("Sky?"), answer("Yes.")], "chosen": [answer("Yes.")], "rejected": [answer("No.")]},
            '"prompt" ends with the answer that "chosen" is',
        ),
        (
            {"prompt": [user("Sky?"), answer("No.")], "chosen": "Yes.", "rejected": "No."},
            '"prompt" ends with the answer that "rejected" is',
        ),
    ],
)
def test_dialogues_that_do_not_lead_to_their_sides_are_told(row: dict[str, Any], said: str) -> None:
    assert said in message_of(read_pairs, write(row))
