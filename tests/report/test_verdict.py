"""The verdict says what the intervals say: every combination of signs, any list of arms, anything missing."""

import itertools
from typing import Any

import pytest

from pairtune.report.verdict import verdict

SIGNS = {"above": (0.31, [0.2, 0.42]), "level": (0.03, [-0.08, 0.14]), "below": (-0.31, [-0.42, -0.2])}


def measured(mean: float, ci95: list[float] | None, n: int = 256) -> dict[str, Any]:
    return {"mean": mean, "n": n, "ci95": ci95}


def arm(
    gold: float | None = 0.6,
    *,
    kl: float = 2.5,
    accuracy: float = 0.7,
    seconds: float = 100,
    flops: float = 1e15,
) -> dict[str, Any]:
    return {
        "gold_score": None if gold is None else measured(gold, [gold - 0.1, gold + 0.1]),
        "reward_model_score": measured(0.2, [0.1, 0.3]),
        "heldout_accuracy": measured(accuracy, [accuracy - 0.04, accuracy + 0.04], 512),
        "kl_from_reference": measured(kl, [kl - 0.2, kl + 0.2]),
        "seconds": {"train": seconds * 0.75, "sample": seconds * 0.25},
        "flops": flops,
    }


def differ(gold: str, accuracy: str = "level") -> dict[str, Any]:
    mean, ci95 = SIGNS[accuracy]
    return {
        "gold_score": measured(*SIGNS[gold]),
        "reward_model_score": measured(*SIGNS[gold]),
        "heldout_accuracy": measured(mean / 4, [bound / 4 for bound in ci95], 512),
    }


def summary(arms: dict[str, Any], differences: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "gold_scorer": {"kind": "gold"},
        "arms": {"reference": arm(0.0, kl=0.0, accuracy=0.5, seconds=0, flops=0), **arms},
        "differences": differences,
        "failed": {},
        **more,
    }


def two_arms(gold: str, accuracy: str = "level", dpo: str = "above", ppo: str = "above") -> dict[str, Any]:
    return summary(
        {"dpo": arm(0.6), "ppo": arm(0.6 - SIGNS[gold][0], kl=4.1, seconds=980, flops=6.2e15)},
        {"dpo - reference": differ(dpo), "ppo - reference": differ(ppo), "dpo - ppo": differ(gold, accuracy)},
    )


def test_two_arms_word_for_word() -> None:
    assert verdict(two_arms("above", "above")) == (
        "DPO has a higher gold reward than PPO, by 0.31 standard deviations "
        "(95% interval 0.20 to 0.42, n = 256), "
        "at a KL from the reference (nats per response) of 2.50 for DPO and 4.10 for PPO. "
        "Held-out accuracy is 70.0% for DPO and 70.0% for PPO (lower by 7.8 points, "
        "95% interval 5.0 to 10.5 points, n = 512); "
        "PPO took 9.8 times the seconds and 6.2 times the FLOPs of DPO. "
        "Both beat the reference."
    )


@pytest.mark.parametrize(("gold", "accuracy", "dpo", "ppo"), list(itertools.product(SIGNS, SIGNS, SIGNS, SIGNS)))
def test_every_combination_of_signs(gold: str, accuracy: str, dpo: str, ppo: str) -> None:
    said = verdict(two_arms(gold, accuracy, dpo, ppo))
    first, second, third = said.removesuffix(".").split(". ")

    assert ("no detectable difference" in first) is (gold == "level")
    assert first.startswith("DPO has a higher gold reward than PPO") is (gold == "above")
    assert first.startswith("PPO has a higher gold reward than DPO") is (gold == "below")

    assert ("no detectable difference" in second) is (accuracy == "level")
    other = "DPO" if gold == "below" else "PPO"  # the second named: what the first's accuracy is compared with
    lower = (accuracy == "above") is (other == "PPO")
    assert (f"{other} (lower by 7.8 points" in second) is (accuracy != "level" and lower)
    assert (f"{other} (higher by 7.8 points" in second) is (accuracy != "level" and not lower)

    said_of = {
        "above": "beat the reference",
        "level": "did not detectably",
        "below": "scored below the reference",
    }
    for name, sign in (("DPO", dpo), ("PPO", ppo)):
        clause = third if third.startswith("Both") else next(part for part in third.split("; ") if name in part)
        assert said_of[sign] in clause
        assert ("did not" in clause) is (sign == "level")


def test_the_way_round_of_a_saved_difference_is_no_matter() -> None:
    told = two_arms("above")
    turned = two_arms("above")
    turned["differences"]["ppo - dpo"] = {
        field: measured(-saved["mean"], [-saved["ci95"][1], -saved["ci95"][0]], saved["n"])
        for field, saved in turned["differences"].pop("dpo - ppo").items()
    }
    assert verdict(turned) == verdict(told)


def test_three_arms() -> None:
    said = verdict(
        summary(
            {
                "dpo": arm(0.6),
                "ppo": arm(0.29, kl=4.1, seconds=980, flops=6.2e15),
                "simpo": arm(0.57, kl=2.4, seconds=110, flops=1e15),
            },
            {
                "dpo - ppo": differ("above", "above"),
                "dpo - simpo": differ("level"),
                "dpo - reference": differ("above"),
                "ppo - reference": differ("level"),
                "simpo - reference": differ("above"),
            },
        )
    )
    assert "DPO has the highest mean gold reward, detectably above PPO (by 0.31, 95% interval 0.20 to 0.42" in said
    assert "with no detectable difference from SimPO (by 0.03, 95% interval −0.08 to 0.14" in said
    assert "of 2.50 for DPO, 2.40 for SimPO and 4.10 for PPO." in said
    assert "SimPO took 1.1 times the seconds and 1.0 times the FLOPs and PPO took 9.8 times" in said
    assert said.endswith("DPO and SimPO beat the reference; PPO did not detectably beat the reference.")


def test_three_arms_some_not_compared() -> None:
    arms = {"dpo": arm(0.6), "ipo": arm(0.5), "kto": arm(0.4)}
    assert "not compared with KTO" in verdict(summary(arms, {"dpo - ipo": differ("level")}))
    assert "No gold reward was taken to compare DPO, IPO and KTO" in verdict(summary(arms, {}))


@pytest.mark.parametrize(
    ("sign", "start"),
    [
        ("above", "DPO has a higher gold reward than the reference, by 0.31"),
        (
            "level",
            "There is no detectable difference in gold reward between DPO and the reference (0.03, 95%",
        ),
        ("below", "The reference has a higher gold reward than DPO, by 0.31"),
    ],
)
def test_one_arm_is_compared_with_the_reference(sign: str, start: str) -> None:
    said = verdict(summary({"dpo": arm(0.6)}, {"dpo - reference": differ(sign)}))
    assert said.startswith(start)
    assert "at a KL from the reference of 2.50 nats per response." in said
    assert said.endswith(
        "Its held-out accuracy is 70.0% (95% interval 66.0 to 74.0%, n = 512); it took 100 s and 1.0×10¹⁵ FLOPs."
    )


def test_a_failed_arm_is_a_result() -> None:
    told = two_arms("above")
    told["failed"] = {"ppo": "out of memory\nat step 12."}
    said = verdict(told)
    assert said.startswith("DPO has a higher gold reward than the reference")
    assert said.endswith("PPO failed (out of memory at step 12).")
    told["failed"]["dpo"] = ""
    assert verdict(told) == "No arm finished. PPO failed (out of memory at step 12); DPO failed."
    del told["arms"]["dpo"], told["arms"]["ppo"]
    assert verdict(told) == "No arm finished. PPO failed (out of memory at step 12); DPO failed."


def test_a_judge_is_called_a_judge_and_without_either_the_reward_model_is_named() -> None:
    told = two_arms("above")
    told["gold_scorer"]["kind"] = "judge"
    assert "a higher judge score than PPO" in verdict(told)
    for name in ("dpo", "ppo"):
        told["arms"][name]["gold_score"] = None
    assert verdict(told).startswith("DPO has a higher reward-model score than PPO, by 0.31 standard deviations (95%")


def test_nothing_measured_still_reads() -> None:
    bare = {"heldout_accuracy": None, "kl_from_reference": None, "seconds": {}, "flops": 0}
    told = {"arms": {"reference": bare, "dpo": bare, "ppo": bare}, "differences": {}}
    assert verdict(told) == "No reward-model score was taken to compare DPO with PPO."


def test_one_prompt_has_no_interval_and_detects_nothing() -> None:
    told = two_arms("above")
    told["differences"]["dpo - ppo"]["gold_score"]["ci95"] = None
    assert "no detectable difference in gold reward" in verdict(told)
    assert "no interval, n = 256" in verdict(told)


def test_a_small_difference_is_not_rounded_to_zero() -> None:
    told = two_arms("above")
    told["differences"]["dpo - ppo"]["gold_score"] = measured(0.004, [0.0012, 0.007])
    assert "by 0.004 standard deviations (95% interval 0.0012 to 0.01" in verdict(told)


def test_what_was_chosen_and_by_what_is_said_where_there_was_a_choice() -> None:
    def tried(chosen: float, *values: float) -> list[dict[str, Any]]:
        return [
            {
                "parameters": {"beta": value, "tau": 1.0},
                "chosen": value == chosen,
                "gold_score": measured(0.1, None, 180),
            }
            for value in values
        ]

    found = two_arms("above")
    assert "tried" not in verdict(found)
    found |= {"grid": {"dpo": tried(0.3, 0.1, 0.3, 0.5)}}
    said = "Chosen by gold reward on 180 validation prompts: DPO at beta 0.3 (of 3 tried)"
    unequal = "; they were not tried equally often (DPO 3 and PPO 1), which favours those with more"
    last = "; no held-out figure had a part in it."
    assert verdict(found).endswith(said + unequal + last)
    found["grid"]["ppo"] = tried(0.5, 0.1, 0.5, 0.7)
    assert verdict(found).endswith(f"DPO at beta 0.3 (of 3 tried) and PPO at beta 0.5 (of 3 tried){last}")
    found["grid"]["ppo"][0]["failed"] = "FloatingPointError: nan"
    assert verdict(found).endswith(f"PPO at beta 0.5 (of 3 tried, 1 failed){last}")


def test_the_bill_of_the_whole_grid_stands_beside_the_winners() -> None:
    found = two_arms("above")
    assert "tried" not in verdict(found)
    found["arms"]["dpo"] |= {"grid_seconds": 300.0, "grid_flops": 3e15, "candidates": 3}
    said = "6.2 times the FLOPs of DPO; with every value that was tried, DPO 300 s and 3.0×10¹⁵ FLOPs. Both"
    assert said in verdict(found)


def test_how_large_a_difference_would_have_been_seen_is_said() -> None:
    found = two_arms("level")
    assert "would be found" not in verdict(found)
    found["smallest_difference"] = 0.2134
    assert "A difference of 0.21 would be found in 80% of such comparisons." in verdict(found)


def test_best_of_n_has_no_values_to_try() -> None:
    found = two_arms("above")
    found["arms"]["best-of-4"] = arm(0.5)
    point = {"parameters": {"beta": 0.1}, "chosen": True, "gold_score": measured(0.1, None, 180)}
    found["grid"] = {name: [point, point | {"chosen": False}] for name in ("dpo", "ppo")}
    assert "tried equally often" not in verdict(found)


def test_of_how_many_comparisons_the_intervals_hold_is_said() -> None:
    arms = {name: arm(0.6) for name in ("dpo", "ipo", "kto")}
    found = summary(arms, {f"{name} - dpo": differ("level") for name in ("ipo", "kto")})
    assert "The intervals of the 3 differences between arms hold together with 95%." in verdict(found)
    assert "hold together" not in verdict(two_arms("above"))


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (
            (0.63, 0.47, 0.8, 40),
            "The judge's own accuracy of 63.0% (95% interval 47.0 to 80.0%, n = 40) cannot be told",
        ),
        ((0.63, 0.57, 0.69, 240), "The judge is weak, right on 63.0% of held-out pairs (95% interval 57.0 to 69.0%, n"),
    ],
)
def test_a_judge_that_is_often_wrong_is_said_to_be(accuracy: Any, said: str) -> None:
    found = two_arms("above") | {"gold_scorer": {"kind": "judge"} | right(*accuracy)}
    assert said in verdict(found)
    assert "gold" not in verdict(found).lower()
    found["gold_scorer"] = {"kind": "judge"} | right(0.8, 0.7, 0.9)
    assert "weak" not in verdict(found)


def test_of_several_arms_those_that_cannot_be_told_apart_in_accuracy_are_named_together() -> None:
    arms = {"dpo": arm(0.9), "ipo": arm(0.6), "kto": arm(0.5), "ppo": arm(0.4)}
    pairs = {"ipo - dpo": "level", "kto - dpo": "level", "ppo - dpo": "below"}
    said = verdict(summary(arms, {pair: differ("below", accuracy) for pair, accuracy in pairs.items()}))
    assert "70.0% for KTO and 70.0% for PPO (lower by 7.8 points" in said
    assert "; there is no detectable difference between DPO and IPO or KTO" in said


# ---- no better than chance ----------------------------------------------------------------------------------------


def right(mean: float, low: float, high: float, n: int = 200) -> dict[str, Any]:
    return {"heldout_accuracy": measured(mean, [low, high], n)}


def test_one_arm_at_chance() -> None:
    told = summary({"dpo": arm(0.6) | right(0.535, 0.465, 0.6)}, {"dpo - reference": differ("above")})
    said = "DPO's held-out accuracy of 53.5% (95% interval 46.5 to 60.0%, n = 200) cannot be told from chance; DPO took"
    assert said in verdict(told)
    told["arms"]["dpo"] |= right(0.535, 0.5, 0.57)
    assert "cannot be told from chance" in verdict(told), "a bound that is 50% does not exclude it"
    told["arms"]["dpo"] |= right(0.585, 0.515, 0.65)
    assert "chance" not in verdict(told)
    told["arms"]["dpo"] |= right(0.4, 0.33, 0.47)
    assert "Its held-out accuracy is 40.0% (95% interval 33.0 to 47.0%, n = 200), below chance; it took" in verdict(
        told
    )
    told["arms"]["dpo"] |= {"heldout_accuracy": measured(1.0, None, 1)}
    assert "of 100.0% (no interval, n = 1) cannot be told from chance" in verdict(told)


@pytest.mark.parametrize(
    ("dpo", "ppo", "said"),
    [
        (
            (0.535, 0.465, 0.6),
            (0.6, 0.53, 0.67),
            "DPO's (95% interval 46.5 to 60.0%, n = 200) cannot be told from chance",
        ),
        (
            (0.6, 0.53, 0.67),
            (0.46, 0.39, 0.53),
            "PPO's (95% interval 39.0 to 53.0%, n = 200) cannot be told from chance",
        ),
        (
            (0.535, 0.465, 0.6),
            (0.46, 0.39, 0.53),
            "neither can be told from chance: DPO (95% interval 46.5 to 60.0%, n = 200) "
            "and PPO (95% interval 39.0 to 53.0%, n = 200)",
        ),
        ((0.6, 0.53, 0.67), (0.42, 0.35, 0.49), "PPO's (95% interval 35.0 to 49.0%, n = 200) is below chance"),
    ],
)
def test_two_arms_of_which_one_or_both_are_at_chance(dpo: Any, ppo: Any, said: str) -> None:
    told = two_arms("above")
    told["arms"]["dpo"] |= right(*dpo)
    told["arms"]["ppo"] |= right(*ppo)
    assert f"; {said}; PPO took" in verdict(told)
    assert verdict(told).count("chance") == 1


def test_several_arms_at_chance() -> None:
    arms = {name: arm(0.9) | right(0.52, 0.45, 0.59) for name in ("dpo", "ipo", "kto")}
    assert "; none can be told from chance: DPO (95% interval 45.0 to 59.0%, n = 200), IPO (" in verdict(
        summary(arms, {})
    )
    arms["kto"] |= right(0.6, 0.53, 0.67)
    assert "DPO's (95% interval 45.0 to 59.0%, n = 200) and IPO's (" in verdict(summary(arms, {}))


def test_a_reward_model_at_chance_taught_nothing() -> None:
    told = two_arms("above") | {"reward_model": right(0.51, 0.44, 0.58)}
    said = "The reward model's own accuracy of 51.0% (95% interval 44.0 to 58.0%, n = 200) cannot be told from chance, "
    assert said + "so PPO had nothing to learn from. Both beat the reference." in verdict(told)
    told["reward_model"] = right(0.68, 0.61, 0.74)
    assert "chance" not in verdict(told)
    del told["arms"]["ppo"]
    told["reward_model"] = None
    assert "chance" not in verdict(told)


def test_a_judge_at_chance_decides_nothing() -> None:
    told = two_arms("above")
    told["gold_scorer"] = {"kind": "judge"} | right(0.55, 0.3, 0.8, 12)
    said = "The judge's own accuracy of 55.0% (95% interval 30.0 to 80.0%, n = 12) cannot be told from chance, "
    assert f"DPO and 4.10 for PPO. {said}so its scores decide nothing. Held-out" in verdict(told)
    told["gold_scorer"]["kind"] = "gold"  # the labels were made from it, whatever it says of reviews
    assert "chance" not in verdict(told)
    told["gold_scorer"] = {"kind": "judge"} | right(0.8, 0.7, 0.9)
    assert "chance" not in verdict(told)


# ---- ties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [0.0, -0.0, -3e-17])
@pytest.mark.parametrize("ci95", [[-0.1, 0.1], [0.0, 0.0], [-0.1, -0.0]])
def test_ties_are_said_to_be_ties(zero: float, ci95: list[float]) -> None:
    """Once: "DPO has the highest mean, with no detectable difference from IPO (by −0.00, ...)"."""
    tied = {"gold_score": measured(zero, ci95), "heldout_accuracy": measured(zero, ci95, 512)}
    arms = {"dpo": arm(0.6), "ipo": arm(0.6), "ppo": arm(0.29)}
    said = verdict(summary(arms, {"ipo - dpo": tied, "ppo - dpo": differ("below")}))
    assert said.startswith(
        "DPO and IPO share the highest mean gold reward, detectably above PPO (by 0.31, 95% interval"
    )
    assert "IPO (by" not in said
    del arms["ppo"]
    said = verdict(summary(arms, {"ipo - dpo": tied}))
    assert said.startswith(
        "There is no detectable difference in gold reward between DPO and IPO, whose means are the same"
    )
    assert " (0.00, " in said
    for words in ("−0.00", "−0.0 ", "-0"):
        assert words not in said


def test_arms_that_all_tie_need_no_more_words() -> None:
    tied = {"gold_score": measured(0.0, [0.0, 0.0])}
    arms = {name: arm(0.6) for name in ("dpo", "ipo", "kto")}
    said = verdict(summary(arms, {f"{name} - dpo": tied for name in ("ipo", "kto")}))
    assert said.startswith("DPO, IPO and KTO share the highest mean gold reward, at a KL")
