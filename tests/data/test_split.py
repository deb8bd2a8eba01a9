"""The split keeps prompts whole, depends on content and seed alone, and never empties a side."""

import random
from typing import Any

import pytest

from pairtune.data.schema import Message, Pair
from pairtune.data.split import split_by_prompt
from pairtune.errors import InputError


def make_pairs(sizes: Any) -> Any:
    prompts = [f"prompt {p}" if p % 2 else (Message("user", f"prompt {p}"),) for p in range(len(sizes))]
    keys = [prompt for prompt, size in zip(prompts, sizes, strict=True) for _ in range(size)]
    return [Pair(prompt, f"a{row}", f"b{row}", row) for row, prompt in enumerate(keys, 1)]


MIXED = make_pairs([1, 4, 2, 1, 3, 1, 1, 2, 5, 1, 1, 1, 2, 1, 1])  # 27 pairs


@pytest.mark.parametrize("heldout", [1, 5, 13, 20, 0.2, 0.5])
@pytest.mark.parametrize("seed", [0, 1, -7])
def test_prompts_stay_whole_and_the_count_is_exact(heldout: Any, seed: Any) -> None:
    train, held = split_by_prompt(MIXED, heldout=heldout, seed=seed)
    assert not {p.prompt for p in train} & {p.prompt for p in held}
    assert len(held) == (round(heldout * 27) if isinstance(heldout, float) else heldout)
    assert [p.row for p in train] == sorted({*range(1, 28)} - {p.row for p in held})
    assert [p.row for p in held] == sorted(p.row for p in held)


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does() -> None:
    shuffled = random.Random(0).sample(MIXED, len(MIXED))
    one, other = (split_by_prompt(rows, heldout=9, seed=3)[1] for rows in (MIXED, shuffled))
    assert {p.row for p in one} == {p.row for p in other}
    assert len({tuple(split_by_prompt(MIXED, heldout=9, seed=seed)[1]) for seed in range(10)}) > 5


def test_the_choice_is_the_same_on_every_machine() -> None:
    _, held = split_by_prompt(make_pairs([1] * 12), heldout=4, seed=0)
    assert [p.row for p in held] == [7, 8, 10, 11]


def test_a_prompt_that_does_not_fit_is_never_cut() -> None:
    train, held = split_by_prompt(make_pairs([3, 3, 3]), heldout=4, seed=0)
    assert (len(train), len(held)) == (6, 3)


@pytest.mark.parametrize(
    ("pairs", "heldout", "message"),
    [
        (MIXED, 0, "no held-out pairs: 0 of 27 is 0; hold out at least 1"),
        (MIXED, -3, "no held-out pairs: -3 of 27 is -3; hold out at least 1"),
        (MIXED, 0.01, "no held-out pairs: 0.01 of 27 is 0; hold out at least 1"),
        (MIXED, 27, "no training pairs are left: 27 of 27 held out; hold out fewer"),
        (MIXED, 0.99, "no training pairs are left: 27 of 27 held out; hold out fewer"),
        (MIXED, 1.0, "a held-out share of 1 is not between 0 and 1; give one that is"),
        (MIXED, 0.0, "a held-out share of 0 is not between 0 and 1; give one that is"),
        (MIXED, float("nan"), "a held-out share of nan is not between 0 and 1; give one that is"),
        ([], 1, "no training pairs are left: 1 of 0 held out; hold out fewer"),
        (
            make_pairs([3, 2]),
            1,
            "no held-out pairs: every prompt has more than 1 pair and may not be cut; hold out at least 2 pairs",
        ),
    ],
)
def test_a_side_without_pairs_is_an_error(pairs: Any, heldout: Any, message: Any) -> None:
    with pytest.raises(InputError) as error:
        split_by_prompt(pairs, heldout=heldout, seed=0)
    assert str(error.value) == message


def asks(prompts: Any, first: int) -> list[Pair]:
    return [Pair(prompt, "a", "b", row) for row, prompt in enumerate(prompts, first)]


def test_prompts_of_the_same_words_stay_together_and_nothing_else_moves() -> None:
    plain = asks([f"prompt number {i}" for i in range(40)], 0)
    twins = asks([f"  Prompt   NUMBER {i}?" for i in range(40)], 100)
    dialogues = asks([(Message("user", f"Is it {i}?"),) for i in range(5)], 200)
    dialogues += asks([(Message("user", f"is it {i}"),) for i in range(5)], 205)
    for seed in range(5):
        train, held = split_by_prompt([*plain, *twins, *dialogues], heldout=15, seed=seed)
        sides = [{row.row % 100 if row.row < 200 else 200 + row.row % 5 for row in side} for side in (train, held)]
        assert not sides[0] & sides[1]
        alone = split_by_prompt(plain, heldout=10, seed=seed)[1]
        more = split_by_prompt([*plain, *asks(["something else"], 300)], heldout=10, seed=seed)[1]
        assert len({row.row for row in more} ^ {row.row for row in alone}) <= 2  # at most one prompt changes places
