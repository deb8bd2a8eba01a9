"""Each finding is told when it is there, with its count and its rows, and not when it is not."""

from typing import Any

import pytest

from pairtune.data.check import Finding, check_pairs, check_skipped
from pairtune.data.schema import Message, Pair, Skipped

CLEAN = [
    Pair("Who wrote Emma?", "Jane Austen.", "Nobody", 1),
    Pair("Who wrote Ulysses?", "Joyce", "Homer!", 2),
]
ASKED = (Message("system", "Be brief."), Message("user", "Who wrote Emma?"))


def found(pairs: Any, name: Any) -> Any:
    return next((finding for finding in check_pairs(pairs) if finding.name == name), None)


def test_sound_pairs_give_the_length_baseline_alone() -> None:
    message = (
        '"the longer response wins" is right for 50.0% of the 2 pairs (in characters; 0 ties count half): '
        "a baseline that any method should beat"
    )
    assert check_pairs(CLEAN) == [Finding("longer_wins", 2, (), message)]


def test_no_pairs_give_no_findings() -> None:
    assert check_pairs([]) == []


@pytest.mark.parametrize(
    ("sides", "rule", "best", "ties"),
    [
        ([("aa", "b"), ("aa", "b"), ("a", "bb")], "longer", "66.7%", 0),
        ([("a", "bb"), ("a", "bb"), ("a", "b"), ("a", "c")], "shorter", "75.0%", 2),
        ([("a", "b")], "longer", "50.0%", 1),
        ([("é", "ab")], "shorter", "100.0%", 0),  # characters, not bytes
    ],
)
def test_the_length_baseline_counts_ties_half(sides: Any, rule: Any, best: Any, ties: Any) -> None:
    pairs = [Pair(f"p{row}", *side, row) for row, side in enumerate(sides, 1)]
    message = found(pairs, "longer_wins").message
    some = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    assert message.startswith(f'"the {rule} response wins" is right for {best} of the {some} (in characters; ')
    assert ("1 tie counts half" if ties == 1 else f"{ties} ties count half") in message


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            [Pair("x", "same", "same", 4), Pair("y", "same", "same?", 5), *CLEAN],
            Finding(
                "identical",
                1,
                (4,),
                "1 pair (row 4) has a chosen response identical to the rejected one and teaches nothing",
            ),
        ),
        (
            [Pair("x", "a", "b", 1), Pair("x", "a", "b", 5), Pair("x", "a", "b", 9), Pair("y", "a", "b", 11)],
            Finding("duplicate", 2, (5, 9), "2 pairs (rows 5, 9) repeat an earlier pair word for word"),
        ),
        (
            [Pair("x", "a", "b", 1), Pair("y", "b", "a", 2), Pair("x", "b", "a", 3), Pair("x", "c", "c", 4)],
            Finding(
                "contradictory",
                2,
                (1, 3),
                "2 pairs (rows 1, 3) prefer one response to another where a different pair prefers the "
                "second to the first",
            ),
        ),
        (
            [Pair("x", "a", "b", 1), Pair("y", "a", "b", 2), Pair("x", "c", "d", 3)],
            Finding(
                "shared_prompt",
                2,
                (1, 3),
                "2 pairs (rows 1, 3) share their prompt with another pair (2 distinct prompts in 3 pairs, at "
                "most 2 pairs for one): hold out whole prompts",
            ),
        ),
        (
            [
                Pair("Who wrote Emma?", "Who wrote Emma? Austen", "Joyce", 1),
                Pair(ASKED, "Joyce", " Who wrote Emma?", 2),
                Pair("A", "A cat", "A dog", 3),  # too short to mean anything
            ],
            Finding(
                "prompt_repeated",
                2,
                (1, 2),
                "2 pairs (rows 1, 2) have a response that starts with the prompt's own text (a column that "
                "holds prompt and response together?)",
            ),
        ),
        (
            [
                Pair("<|im_start|>user\nhi<|im_end|>", "a<|im_end|>", "b<|im_end|>", 1),
                Pair("\n\nHuman: x\n\nAssistant:", "yes", "no\n\nHuman: why?", 2),
                Pair("y", "Human: is a word", "<|pipe|>", 3),
            ],
            Finding(
                "template_token",
                2,
                (1, 2),
                "2 pairs (rows 1, 2) have a chat template's marks inside a response "
                '("\\n\\nHuman:" in 1, "<|im_end|>" in 1)',
            ),
        ),
        (
            [Pair(ASKED, "a", "b", 1), Pair((*ASKED, Message("assistant", "Me")), "c", "d", 8)],
            Finding(
                "turns",
                1,
                (8,),
                "1 pair (row 8) is a dialogue in which user and assistant do not take turns (some chat "
                "templates refuse that)",
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Finding) else "",
)
def test_each_finding(pairs: Any, expected: Any) -> None:
    assert found(pairs, expected.name) == expected
    assert found(CLEAN, expected.name) is None


def test_at_most_ten_rows_are_named() -> None:
    pairs = [Pair(f"p{row}", "same", "same", row) for row in range(1, 14)]
    finding = found(pairs, "identical")
    assert (finding.count, finding.rows) == (13, tuple(range(1, 11)))
    assert finding.message.startswith("13 pairs (rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more) have")


def test_skipped_rows_are_told_by_reason_the_most_frequent_first() -> None:
    skipped = [Skipped(2, "empty"), Skipped(3, "torn"), Skipped(7, "torn")]
    assert check_skipped(skipped) == [
        Finding("skipped", 2, (3, 7), "2 rows (rows 3, 7) left out: torn"),
        Finding("skipped", 1, (2,), "1 row (row 2) left out: empty"),
    ]
    assert check_skipped([]) == []
