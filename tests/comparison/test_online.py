"""The methods between DPO and PPO as arms: trained, ended, measured and billed as every other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.comparison.effort import effort, sources
from pairtune.comparison.run import compare
from pairtune.configure import settings_from_keywords
from pairtune.errors import InputError
from pairtune.grid import candidates
from pairtune.objectives import pairwise, policy_gradient
from pairtune.runs import CompareRun
from pairtune.settings import Grpo, Online, OnlinePreference, Ppo, Rloo
from pairtune.training import grouped, online, online_pairs, ppo

Tiny = Callable[..., CompareRun]
SAMPLED = ["online-ipo", "rloo", "grpo", "ppo"]
FEW: dict[str, Any] = {"online_steps": 3, "online_batch_size": 6, "online_answers_per_prompt": 3, "ppo_steps": 3}


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text(encoding="utf-8")))


def test_they_are_ended_measured_and_billed_as_ppo_is(tiny_run: Tiny) -> None:
    moving = {
        "learning_rate": 1e-2,
        "online_learning_rate": 1e-2,
        "online_temperature": 0.8,
        "ppo_temperature": 0.8,
        "evaluation_curve_points": 0,
    }
    given = FEW | moving | {"methods": ["dpo", *SAMPLED], "match_kl": True, "evaluation_curve_points": 0}
    summary = read(compare(tiny_run(**given)))
    assert list(summary["arms"]) == ["reference", "dpo", *SAMPLED]
    assert summary["failed"] == {}
    first = summary["arms"]["rloo"]
    for arm in SAMPLED:
        found = summary["arms"][arm]
        assert list(found["seconds"]) == ["reward", arm]
        assert found["seconds"]["reward"] == first["seconds"]["reward"] > 0
        assert found["flops"] > 0
        assert found["heldout_own_accuracy"] == first["heldout_own_accuracy"]  # by the reward model that they obey
        assert found["kl_from_reference"]["n"] == 8
        where = summary["matched_kl"][arm]
        assert (where["arm"], where["steps"]) == ("dpo", 3)
        assert where["kl"] > 0
        assert where["step"] <= 3
    assert len({summary["matched_kl"][arm]["kl"] for arm in SAMPLED}) == 1


def test_effort_is_counted_by_what_each_runs() -> None:
    asked = {arm: effort(arm) for arm in SAMPLED}
    assert {arm: each.models_in_memory for arm, each in asked.items()} == dict.fromkeys(SAMPLED, 3) | {"ppo": 4}
    assert effort("rloo", lora=True).models_in_memory == 1
    assert "online.kl_coefficient" in asked["rloo"].settings_to_tune
    assert "online.normalise" in asked["grpo"].settings_to_tune
    assert not {"online.normalise", "online.clip_value"} & set(asked["rloo"].settings_to_tune)
    assert asked["online-ipo"].settings_to_tune[-1] == "preference.beta"
    assert not [
        name for name in asked["online-ipo"].settings_to_tune if name.endswith(("kl_coefficient", "clip_ratio"))
    ]
    own = {
        "ppo": {ppo.ActorCritic, policy_gradient.advantages, Ppo},
        "rloo": {grouped.LeaveOneOut, policy_gradient.leave_one_out, Rloo},
        "grpo": {grouped.GroupRelative, policy_gradient.kl_of_tokens, Grpo},
        "online-ipo": {online_pairs.OnlinePairs, pairwise.ipo, OnlinePreference},
    }
    for arm, several in own.items():
        found = sources(arm)
        assert several | {online.update, online.Round} <= found
        others = set().union(*(each for name, each in own.items() if name != arm))
        assert not others & found, arm


def grid(**keywords: Any) -> dict[str, list[Online]]:
    found = candidates(settings_from_keywords(CompareRun, keywords))
    return {method: [each.how for each in several] for method, several in found.items()}  # type: ignore[misc]


def test_each_takes_the_section_of_all_and_the_values_that_are_its_own() -> None:
    found = grid(
        methods=["online-dpo", "dpo", "rloo", "grpo"],
        beta=["online-dpo=0.2", "online-dpo=0.4", "dpo=0.1"],
        online_steps=7,
        online_kl_coefficient=[0.01, 0.1],
        online_normalise="none",
    )
    assert [dict(how.parameters) for how in found["online-dpo"]] == [{"beta": 0.2}, {"beta": 0.4}]  # type: ignore[attr-defined]
    assert [how.kl_coefficient for how in found["rloo"]] == [0.01, 0.1]  # type: ignore[attr-defined]
    assert {how.normalise for how in found["grpo"]} == {"none"}  # type: ignore[attr-defined]
    assert {how.steps for method in ("online-dpo", "rloo", "grpo") for how in found[method]} == {7}


def test_the_presets_give_all_that_samples_as_many_answers() -> None:
    for preset in ("quick", "chapter"):
        (rloo,), (theirs,) = grid(preset=preset, methods=["rloo", "ppo"]).values()
        shared = {**vars(theirs), "answers_per_prompt": 4}
        assert {name: value for name, value in vars(rloo).items() if shared[name] != value} == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["online-kto"]}, "kto needs more of a pair than its log-ratios (kl_baseline)"),
        ({"methods": ["online-hing"]}, 'there is no objective "hing"; did you mean "hinge"'),
        ({"methods": ["grop"]}, 'did you mean "grpo"'),
        ({"methods": ["dpo", "online-dpo"], "beta": ["online-dpo=-1"]}, "beta is -1; for dpo it must be above 0"),
        ({"methods": ["online-mine.py:loss"]}, "is a function of your own on sampled pairs"),
        (
            {"methods": ["rloo"], "online_answers_per_prompt": 1},
            "online_answers_per_prompt is 1; it must be at least 2",
        ),
        (
            {"methods": ["rloo"], "online_answers_per_prompt": 5},
            "online_batch_size is 6 answers in a step, which is no",
        ),
        ({"methods": ["rloo"], "match_kl": True}, "match_kl: it needs ppo or another method that samples, and a"),
    ],
)
def test_what_cannot_be_is_one_line(given: dict[str, Any], said: str, tiny_run: Tiny) -> None:
    with pytest.raises(InputError) as caught:
        compare(tiny_run(**{"online_batch_size": 6, **given}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
