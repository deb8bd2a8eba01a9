"""What the texts show: refusals, scripts, hidden characters, near prompts, how far words get; the file without them."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pairtune.cli import main
from pairtune.data.advice import ADVICE, FACTS
from pairtune.data.check import Finding, check_pairs
from pairtune.data.check_near import near_prompts, shared_with
from pairtune.data.check_texts import REFUSAL, check_texts, script_of
from pairtune.data.check_words import bag_of_words
from pairtune.data.fix import write_fixed
from pairtune.data.schema import Labelled, Message, Pair, Prompt
from pairtune.data.sources import read_labelled, read_pairs
from tests.written import write

pytestmark = pytest.mark.usefixtures("inside")

WORDS = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(20) for j in range(20)]


def named(findings: list[Finding], name: str) -> Finding | None:
    return next((finding for finding in findings if finding.name == name), None)


def pair(row: int, chosen: str = "Yes.", rejected: str = "No.", prompt: Any = None) -> Pair:
    return Pair(f"Question {row}?" if prompt is None else prompt, chosen, rejected, row)


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("I'm sorry, but I can't help.", True),
        ("I am very sorry to hear that", True),
        ("Sorry, no.", True),
        ("  “I cannot do that", True),
        ("Unfortunately, I won't.", True),
        ("I'm not able to say", True),
        ("I am unable to say", True),
        ("As an AI, I", True),
        ("I canvassed the street.", False),
        ("I can help with that.", False),
        ("The film was sorry stuff.", False),
        ("As an aim, it is fine.", False),
        ("", False),
    ],
)
def test_answers_that_decline_are_known_by_their_first_words(text: str, declines: bool) -> None:
    assert bool(REFUSAL.match(text)) is declines


def test_a_refusal_counts_where_it_was_preferred_to_an_answer() -> None:
    rows = [
        pair(1, "I can't help.", "Sure."),
        pair(2, "Sure.", "I can't help."),
        pair(3, "Sorry.", "I'm sorry."),
        pair(4),
    ]
    assert named(check_texts(rows), "refusal") == Finding(
        "refusal",
        1,
        (1,),
        "1 pair (row 1) prefers an answer that declines to one that does not (by its first words, in English)",
    )


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The sky", "LATIN"),
        ("Привет!", "CYRILLIC"),
        ("你好", "CJK"),
        ("こんにちは", "HIRAGANA"),
        ("été", "LATIN"),
        ("42!", ""),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


def test_responses_in_another_script_are_told_with_their_rows() -> None:
    rows = [pair(1), pair(2, "Да.", "Нет."), pair(3, "Yes.", "你好"), pair(4, "42", "7")]
    found = named(check_texts(rows), "script")
    assert found is not None
    assert (found.count, found.rows) == (2, (2, 3))
    assert "another script than the others' Latin (Cjk 1, Cyrillic 1)" in found.message
    assert named(check_texts([pair(1), pair(2, "42", "7")]), "script") is None


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x85", "\u200b", "\u202e", "\u2066", "\ufeff", "\ufffd"])
def test_characters_that_nobody_sees_are_told(character: str) -> None:
    for row in (pair(1, f"Y{character}es"), pair(1, "Yes", f"N{character}o"), pair(1, prompt=f"Q{character}?")):
        found = named(check_texts([row, pair(2)]), "control")
        assert found is not None
        assert (found.count, found.rows) == (1, (1,))
        assert f"U+{ord(character):04X} in 1 row" in found.message


def test_what_scripts_need_is_no_hidden_character() -> None:
    rows = [pair(1, "a\tb\r\nc", "क्\u200dष می\u200cخواهم 👩\u200d🚀")]
    assert named(check_texts(rows), "control") is None


def test_words_of_the_prompt_and_lengths_are_facts() -> None:
    rows = [pair(1, "red sky", "green", "red sky"), pair(2, "blue", "red sea", "red sky"), pair(3, "red", "x", "red")]
    found = check_texts(rows)
    like, lengths = named(found, "like_prompt"), named(found, "lengths")
    assert like is not None
    assert lengths is not None
    assert "with more of the prompt's words in it wins\" is right for 66.7% of the pairs" in like.message
    assert lengths.message.startswith("responses have 1 to 7 characters, nine in ten 1 to 7, half at most 4  |")


def test_a_prompt_that_ends_with_its_answer_is_told() -> None:
    found = named(check_pairs([pair(1, "The sky is blue.", "No.", "What? The sky is blue."), pair(2)]), "answered")
    assert found is not None
    assert (found.count, found.rows) == (1, (1,))


def test_lists_that_a_table_holds_as_text_are_told(tmp_path: Path) -> None:
    """In a CSV nothing says whether such a cell is one answer, in JSON, or several: it is trained as it stands, and
    told."""
    path = tmp_path / "pairs.csv"
    lines = [
        ["prompt", "chosen", "rejected"],
        ["1?", '["x", "y"]', '["z"]'],
        ["2?", "['x']", "['y', 'z']"],
        ["3?", "[1]", "x"],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    rows = read_pairs(str(path)).rows
    assert rows[0].chosen == '["x", "y"]'
    found = named(check_pairs(rows), "list")
    assert found is not None
    assert (found.count, len(found.rows)) == (2, 2)
    assert "lists written as text" in found.message


# ---- near prompts ------------------------------------------------------------------------------------------------


def changed(words: list[str], place: int) -> str:
    return " ".join([*words[:place], "else", *words[place + 1 :]])


def test_prompts_that_are_nearly_an_earlier_one_are_told() -> None:
    """Of 20 words there are 18 threes: another last word changes one (17 of 19), one in the middle three (15 of 21)."""
    words = WORDS[:20]
    rows = [
        pair(1, prompt=" ".join(words)),
        pair(2, prompt=changed(words, 19)),
        pair(3, prompt=changed(words, 10)),
        pair(4, prompt=" ".join(words).upper() + "!"),  # the very words are no near ones
        pair(5, prompt=(Message("system", "Be brief."), Message("user", changed(words, 0)))),
        pair(6, prompt="too short"),
    ]
    found = near_prompts(rows)
    assert found is not None
    assert (found.count, found.rows) == (2, (2, 5))
    assert near_prompts(rows[2:4]) is None


def test_prompts_that_another_file_has_are_told() -> None:
    words = WORDS[:20]
    others = [Prompt(" ".join(words), 1), Prompt("What is it?", 2)]
    rows = [
        pair(1, prompt=changed(words, 19)),
        pair(2, prompt=changed(words, 10)),
        pair(3, prompt="what is IT"),
        pair(4, prompt=(Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "What is it?"))),
        pair(5, prompt=(Message("user", "Hello"), Message("assistant", "What is it?"), Message("user", "Well"))),
    ]
    found = shared_with(rows, others, "bench.jsonl")
    assert found is not None
    assert (found.count, found.rows) == (3, (1, 3, 4))
    assert "bench.jsonl has too (2 of them word for word)" in found.message
    assert shared_with(rows[1:2], others, "bench.jsonl") is None


# ---- how far words get -------------------------------------------------------------------------------------------


def texts(count: int, *, seed: int, planted: tuple[str, str] = ("", "")) -> list[Pair]:
    chance = random.Random(seed)
    sides = [[" ".join([*chance.choices(WORDS, k=8), word]) for word in planted] for _ in range(count)]
    return [pair(row, *side) for row, side in enumerate(sides, 1)]


def share(finding: Finding | None) -> float:
    assert finding is not None
    return float(finding.message.removeprefix("a bag of words alone is right on ").partition("%")[0])


def test_words_tell_what_they_give_away_and_nothing_of_noise() -> None:
    assert share(bag_of_words(texts(200, seed=0, planted=("surely", "never")))) > 95
    noise = [share(bag_of_words(texts(100, seed=seed))) for seed in range(8)]
    assert abs(sum(noise) / len(noise) - 50) < 5  # three standard errors of independent pairs


def test_words_of_one_prompt_are_no_evidence() -> None:
    assert bag_of_words([pair(1, "surely", "never")] * 200) is None


def test_words_of_labelled_responses_are_judged_whatever_the_share_of_labels() -> None:
    chance = random.Random(0)
    rows = [Labelled(f"Question {i}?", " ".join(chance.choices(WORDS, k=8)), i % 10 == 0, i) for i in range(400)]
    assert abs(share(bag_of_words(rows)) - 50) < 12, "nine in ten are undesirable, and that is no skill"
    told = [Labelled(row.prompt, row.response + (" surely" if row.label else ""), row.label, row.row) for row in rows]
    assert share(bag_of_words(told)) > 90
    assert bag_of_words([Labelled(row.prompt, row.response, True, row.row) for row in rows]) is None


# ---- the file without them ---------------------------------------------------------------------------------------


TOOLS = [{"type": "function", "function": {"name": "look_up"}}]


def test_what_is_left_is_read_again_as_it_was() -> None:
    turns = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Sky?"}]
    source = write(
        {"prompt": "Sky?", "chosen": " Blue.\n", "rejected": "Grün – ja", "weight": 2, "margin": 0.5},
        {"prompt": "Sky?", "chosen": "same", "rejected": "same", "weight": 1, "margin": 1},
        {"prompt": "Sky?", "chosen": " Blue.\n", "rejected": "Grün – ja", "weight": 3, "margin": 1},
        {"prompt": "A?", "chosen": "x", "rejected": "y", "weight": 1, "margin": 1},
        {"prompt": "A?", "chosen": "y", "rejected": "x", "weight": 1, "margin": 1},
        {"prompt": "B?", "chosen": "x\x00", "rejected": "y", "weight": 1, "margin": 1},
        {
            "prompt": turns,
            "chosen": [{"role": "assistant", "content": "Blue.", "reasoning_content": "hm"}],
            "rejected": [{"role": "assistant", "content": "Green."}],
            "weight": 1,
            "margin": -2,
            "tools": TOOLS,
            "enable_thinking": True,
        },
    )
    rows = read_pairs(source).rows
    kept, left_out, reasons = write_fixed(rows, Path("fixed.jsonl"), "d.jsonl line")
    assert kept == 2
    assert dict(reasons) == {
        "both sides are the same": 1,
        "it repeats an earlier row": 1,
        "it contradicts another row": 2,
        "it holds characters that nobody sees": 1,
    }
    again = read_pairs("fixed.jsonl").rows
    expected = [rows[0], rows[6]]
    assert [(p.prompt, p.chosen, p.rejected, p.weight, p.margin) for p in again] == [
        (p.prompt, p.chosen, p.rejected, p.weight, p.margin) for p in expected
    ]
    assert [json.loads(p.beside or "{}") for p in again] == [json.loads(p.beside or "{}") for p in expected]
    lines = [json.loads(line) for line in left_out.read_text().splitlines()]
    assert [line["row"] for line in lines] == [2, 3, 4, 5, 6]


def test_labelled_rows_are_left_as_they_were() -> None:
    rows = [{"prompt": f"{i}?", "response": "x", "label": i % 2 == 0} for i in range(3)]
    rows += [rows[0], {"prompt": "1?", "response": "x", "label": True}]
    read = read_labelled(write(*rows)).rows
    assert write_fixed(read, Path("f.jsonl"), "line")[0] == 2
    again = read_labelled("f.jsonl").rows
    assert [(row.prompt, row.response, row.label) for row in again] == [("0?", "x", True), ("2?", "x", True)]


def test_the_command_tells_where_what_it_does_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Is it {word}?", "chosen": "Yes, it is.", "rejected": "No."} for word in WORDS[:9]]
    source = write(*rows, rows[0], {"prompt": "Z?", "chosen": "ok\u202e", "rejected": "no"})
    bench = write({"prompt": f"is it {WORDS[2]}"}, name="bench.jsonl")
    assert main(["check", "--data", source, "--against", bench, "--fix", "good.jsonl", "--json"]) == 1
    output = capsys.readouterr()
    found = {finding["name"]: finding for finding in json.loads(output.out)}
    assert found["duplicate"] == {
        "name": "duplicate",
        "count": 1,
        "rows": [10],
        "message": "1 pair (row 10) repeats an earlier pair word for word",
        "finding": True,
        "share": pytest.approx(1 / 11),
        "where": ["d.jsonl line 10"],
        "effect": "they count twice",
        "todo": "--fix leaves the later ones out; a column weight says it openly",
    }
    assert found["shared_with"]["rows"] == [3]
    assert found["control"]["where"] == ["d.jsonl line 11"]
    assert found["lengths"]["finding"] is False
    assert "good.jsonl: 9 rows of 11; what went and why is in good.left-out.jsonl" in output.err
    assert main(["check", "good.jsonl"]) == 0
    capsys.readouterr()
    assert main(["check", "good.jsonl", "--data", source]) == 2
    assert '"good.jsonl" is one word too many for `pairtune check`' in capsys.readouterr().err
    assert main(["check", "--data", source, "--fix", "good.jsonl"]) == 2
    assert 'fix: "good.jsonl" exists; give another, or --overwrite' in capsys.readouterr().err
    assert main(["check", "--data", source, "--against", "none.jsonl"]) == 2
    assert "\u202e" not in output.err
    assert not ADVICE.keys() & FACTS.keys()


def test_rows_are_shown_token_by_token_and_a_page_holds_hostile_text_as_text(
    tiny_folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "<script>alert(1)</script>"
    source = write(
        *({"prompt": f"Film {i} {hostile}", "chosen": f" {hostile} was", "rejected": " dull\x1b[31m"} for i in range(3))
    )
    model = str(tiny_folder(tmp_path))
    assert main(["check", source, "--model", model, "--html", "page.html"]) == 1
    output = capsys.readouterr()
    shown = [line for line in output.out.splitlines() if line.startswith("⟦")]
    assert len(shown) == 6
    assert shown[0].replace("|", "") == f"⟦ {hostile} was</s>⟧"
    assert shown[1].replace("|", "") == "⟦ dull\\u001b[31m</s>⟧"
    assert "d.jsonl line 2, as the model reads it" in output.out
    assert "page: page.html" in output.err
    page = Path("page.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;" in page
    assert main(["check", source, "--html", "page.html"]) == 2
    assert 'html: "page.html" exists; give another, or --overwrite' in capsys.readouterr().err
