"""Settings: what wins over what, what is refused and how it is said, and one mapping for flags, files and keywords."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from pairtune.cli import SETTINGS
from pairtune.configure import (
    loss_to_train,
    read_preset,
    settings_from,
    settings_from_keywords,
)
from pairtune.errors import InputError
from pairtune.flags import add_flags, by_flag, flag
from pairtune.grid import candidates
from pairtune.runs import CompareRun, PpoRun, Run, TuneRun
from pairtune.settings_list import settings_of, to_mapping

COMMANDS = [kind for kind in SETTINGS.values() if issubclass(kind, Run)]


def written(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def complaint(command: type, config: str | None = None, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        settings_from(command, {name.replace("__", "."): value for name, value in given.items()}, config=config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_preset_is_below_the_config_and_the_config_below_the_flags(tmp_path: Path) -> None:
    preset = settings_from(CompareRun, {})
    assert preset.ppo.steps == read_preset("quick")["ppo"]["steps"]
    config = written(tmp_path, f"ppo: {{steps: {preset.ppo.steps + 1}}}\nseed: 4\n")
    assert settings_from(CompareRun, {}, config=config).ppo.steps == preset.ppo.steps + 1
    both = settings_from(CompareRun, {"ppo.steps": "99"}, config=config)
    assert (both.ppo.steps, both.seed, both.ppo.batch_size) == (99, 4, preset.ppo.batch_size)


def test_the_preset_may_be_named_in_the_config_and_must_exist(tmp_path: Path) -> None:
    assert settings_from(CompareRun, {}, config=written(tmp_path, "preset: quick\n")).preset == "quick"
    assert 'there is no preset "quik"; the presets are' in complaint(CompareRun, written(tmp_path, "preset: quik\n"))
    assert 'there is no preset "../x"' in complaint(CompareRun, preset="../x")


def test_only_a_comparison_has_a_preset() -> None:
    assert settings_from(TuneRun, {}) == TuneRun()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("preference: {betta: 0.1}", '"preference.betta"; did you mean "preference.beta"?'),
        ("betta: 0.1", '"betta"; did you mean "beta"?'),
        ("ppo: {beta: 1}", '"ppo.beta"; did you mean "beta"?'),
        ("steps: 3", '"steps"; did you mean "ppo_steps"?'),
        ("ppo-stepps: 3", '"ppo-stepps"; did you mean "ppo_steps"?'),
        ("ppo_steps: many", 'ppo_steps is "many"; it must be a whole number'),
        ("ppo: {steps: many}", 'ppo.steps is "many"; it must be a whole number'),
        ("seed:", "seed is empty; it must be a whole number"),
        ("beta: 0.1\npreference: {beta: 0.2}", 'beta and "preference.beta" are one setting; give it once'),
        ("ppo-steps: 1\nppo_steps: 2", 'ppo-steps and "ppo_steps" are one setting; give it once'),
        ("sede: 3", '"sede"; did you mean "seed"?'),
        ("prefrence: {beta: 0.1}", '"prefrence"; did you mean "preference"?'),
        ("xyzzy: 3", 'there is no setting "xyzzy"'),
        ("7: 3", 'there is no setting "7"'),
        ("ppo: 3", '"ppo" is a section; write its settings below it, indented'),
        ("ppo:", '"ppo" is a section'),
        ("- seed", 'must hold "name: value" lines'),
        ("seed: 1\nout: [\n", "line 3 is not YAML"),
        ("seed: 1\n\tout: 3\n", "line 2 is not YAML"),
        ("seed: !!python/object:os.system 1", "is not YAML"),
        ("when: 2020-13-45", "is not YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    config = written(tmp_path, text)
    message = complaint(CompareRun, config)
    assert said in message
    assert config in message


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_takes_the_names_of_the_flags_with_dashes_or_without(command: type, tmp_path: Path) -> None:
    """Every setting of every command: by its flag's name, with underscores, in its section; all make the same."""
    for setting in settings_of(command):
        value = {bool: True, str: "dpo", int: 9, float: 0.5, tuple[str, ...]: ["dpo"]}.get(setting.kind, 0.5)
        value = "quick" if setting.name == "preset" else setting.choices[-1] if setting.choices else value
        given = {setting.name: value} | ({"objective": "rpo"} if setting.name == "alpha" and command is TuneRun else {})
        try:
            expected = settings_from_keywords(command, given)
        except InputError:  # a parameter of another objective than the default one
            assert setting.default is None
            continue
        section, _, inner = setting.key.rpartition(".")
        rest = {name: each for name, each in given.items() if name != setting.name}
        for written_as in (
            {flag(setting).removeprefix("--"): value},
            {setting.name: value},
            {section: {inner: value}} if section else {inner: value},
            {section: {inner.replace("_", "-"): value}} if section else {inner.replace("_", "-"): value},
        ):
            text = yaml.safe_dump(written_as | rest)
            assert settings_from(command, {}, config=written(tmp_path, text)) == expected, text


def test_flags_are_named_as_flags_in_errors(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, CompareRun)
    for words, said in (
        (["--ppo-steps", "many"], '--ppo-steps is "many"; it must be a whole number'),
        (["--beta", "0.1", "x"], '--beta is "x"; it must be a number'),
    ):
        with pytest.raises(InputError) as caught:
            settings_from(CompareRun, by_flag(CompareRun, vars(parser.parse_args(words))))
        assert str(caught.value) == said
    assert "ppo_steps is 0; it must be at least 1" in complaint(CompareRun, ppo_steps=0)


def test_a_section_may_be_a_keyword_too() -> None:
    assert settings_from_keywords(CompareRun, {"ppo": {"steps": 3}}).ppo.steps == 3
    assert "is a section" in complaint(CompareRun, ppo=3)


def test_a_settings_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in complaint(TuneRun, str(tmp_path / "none.yaml"))
    (tmp_path / "tune.yaml").write_text("seed: 1\n")
    assert f'does not exist; did you mean "{tmp_path}/tune.yaml"?' in complaint(TuneRun, str(tmp_path / "tun.yaml"))
    assert "is no ordinary file" in complaint(TuneRun, str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"out: caf\xe9\n")
    assert "cannot be read" in complaint(TuneRun, str(tmp_path / "latin.yaml"))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert settings_from(TuneRun, {}, config=written(tmp_path, "# nothing\n")) == TuneRun()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("preference.beta", 0, "objective: beta is 0; for dpo it must be above 0"),
        ("preference.beta", "0", "must be above 0"),
        ("preference.beta", -0.1, "beta is -0.1; for dpo it must be above 0"),
        ("preference.gamma", 0.5, 'objective: dpo has no parameter "gamma"; its parameters are beta'),
        ("preference.learning_rate", 0, "preference.learning_rate is 0.0; it must be above 0"),
        ("preference.beta", "nan", 'preference.beta is "nan"; it must be a number'),
        ("preference.beta", math.nan, "must be a number"),
        ("preference.beta", "inf", "must be a number"),
        ("preference.beta", "much", 'preference.beta is "much"; it must be a number'),
        ("preference.beta", True, "must be a number"),
        ("preference.beta", None, "must be a number"),
        ("preference.beta", [0.1], "must be a number"),
        ("preference.epochs", "1.5", "must be a whole number"),
        ("preference.epochs", 0, "preference.epochs is 0; it must be at least 1"),
        ("preference.warmup", 1.01, "must be at most 1"),
        ("seed", -1, "seed is -1; it must be at least 0"),
        ("preference.epochs", "1e99", 'preference.epochs is "1e99"; it must be at most 1,000'),
        ("epochs", 1001, "epochs is 1001; it must be at most 1,000"),
        ("batch_size", "1e99", "must be at most 1,000,000,000"),
        pytest.param("seed", 10**5000, "seed is a number of thousands of digits; it must be at most", id="long"),
        ("seed", 2**31, "must be at most 2,147,483,647"),
        ("seed", 10**400, "must be at most"),
        ("preference.beta", 10**400, "must be a number"),
        ("trust_remote_code", "yes", 'trust_remote_code is "yes"; it must be true or false'),
        ("model", 3, "model is 3; it must be text"),
    ],
)
def test_types_and_bounds(key: str, value: Any, said: str) -> None:
    assert said in complaint(TuneRun, **{key.replace(".", "__"): value})


@pytest.mark.parametrize("given", [2, 2.0, "2", "2.0", "2e0", "0.2e1", " 2 ", "+2"])
def test_whole_numbers_in_any_spelling(given: Any) -> None:
    found = settings_from(TuneRun, {"epochs": given}).preference.epochs
    assert (found, type(found)) == (2, int)


def test_numbers_may_come_as_text() -> None:
    settings = settings_from(TuneRun, {"preference.learning_rate": "1e-4", "preference.epochs": "2.0", "seed": "7"})
    assert (settings.preference.learning_rate, settings.preference.epochs, settings.seed) == (1e-4, 2, 7)
    assert isinstance(settings.preference.epochs, int)


@pytest.mark.parametrize("given", [["dpo", "ipo"], ("dpo", "ipo"), "dpo,ipo", ["dpo,ipo"], "dpo ipo", ["dpo,", "ipo"]])
def test_lists_of_names_take_commas_and_spaces(given: Any) -> None:
    assert settings_from(CompareRun, {"methods": given}).methods == ("dpo", "ipo")


@pytest.mark.parametrize("given", [[], "", " , ", [1], None, 3])
def test_what_is_no_list_of_names(given: Any) -> None:
    assert "must be a list of names" in complaint(CompareRun, methods=given)


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_survive_yaml(command: type, tmp_path: Path) -> None:
    settings = settings_from(command, {"seed": 3, "dtype": "float32"})
    config = written(tmp_path, yaml.safe_dump(to_mapping(settings)))
    assert settings_from(command, {}, config=config) == settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_a_meaning_and_a_default_within_its_bounds(command: type) -> None:
    for setting in settings_of(command):
        assert len(setting.meaning) > 10, setting.key
        assert setting.meaning[0].islower() or setting.meaning.split()[0].isupper() or setting.meaning[0] in "γλA"
        assert setting.default is not dataclasses.MISSING
        if setting.default is not None:
            settings_from(command, {setting.key: setting.default})


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_and_keywords_are_one_mapping_without_collisions(command: type) -> None:
    names = [setting.name for setting in settings_of(command)]
    assert len(set(names)) == len(names)
    parser = argparse.ArgumentParser()
    add_flags(parser, command)
    for setting in settings_of(command):
        assert flag(setting) == "--" + setting.name.replace("_", "-")
        if setting.default is None:
            continue  # a parameter of some objectives only: the tests below
        value: Any = {bool: True, str: "dpo", int: "9", float: "0.5", tuple[float, ...]: ["0.5", "0.7"]}.get(
            setting.kind, ["dpo"]
        )
        value = setting.choices[-1] if setting.choices else value
        words = [flag(setting)] + ([] if value is True else [value] if isinstance(value, str) else value)
        found = settings_from(
            command, vars(parser.parse_args(words)) | ({} if setting.name != "preset" else {"preset": "quick"})
        )
        keyword = value if setting.name != "preset" else "quick"
        assert settings_from_keywords(command, {setting.name: keyword}) == found
        assert settings_from_keywords(command, {setting.key: keyword}) == found


def test_the_main_section_stands_alone_and_others_carry_their_name() -> None:
    names = {setting.key: setting.name for setting in settings_of(PpoRun)}
    assert names["ppo.steps"] == "steps"
    assert names["sampling.max_new_tokens"] == "sampling_max_new_tokens"
    assert {s.key: s.name for s in settings_of(CompareRun)}["ppo.steps"] == "ppo_steps"


def test_keywords_take_paths_and_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    settings = settings_from_keywords(TuneRun, {"out": tmp_path, "beta": 0.3})
    assert (settings.out, settings.preference.parameters) == (str(tmp_path), {"beta": 0.3})
    with pytest.raises(InputError, match=r'no setting "bta"; did you mean "beta"\?'):
        settings_from_keywords(TuneRun, {"bta": 0.3})


def test_shipped_presets_are_sound() -> None:
    settings = settings_from(CompareRun, {"preset": "quick"})
    assert settings.methods
    assert settings.pairs > 0


# ---- the parameters of objectives ---------------------------------------------------------------------------------


def test_each_objective_has_its_own_defaults_and_takes_its_own_parameters(tmp_path: Path) -> None:
    plain = loss_to_train(settings_from_keywords(TuneRun, {"objective": "simpo"}))
    assert plain.to_json() == {"simpo": {"weight": 1.0, "beta": 2.0, "gamma": 1.0}}
    config = written(tmp_path, "preference: {objective: simpo, beta: 3, gamma: 0.25}\n")
    mixed = loss_to_train(settings_from(TuneRun, {"preference.gamma": "0.5"}, config=config))
    assert mixed.to_json() == {"simpo": {"weight": 1.0, "beta": 3.0, "gamma": 0.5}}


def test_parameters_survive_yaml(tmp_path: Path) -> None:
    settings = settings_from_keywords(TuneRun, {"objective": "simpo", "gamma": 0.5})
    assert to_mapping(settings)["preference"]["gamma"] == 0.5
    assert settings_from(TuneRun, {}, config=written(tmp_path, yaml.safe_dump(to_mapping(settings)))) == settings


def test_flags_and_keywords_of_parameters_are_the_same() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, TuneRun)
    given = ["--objective", "kto", "--desirable-weight", "2", "--beta", "0.3"]
    found = settings_from(TuneRun, vars(parser.parse_args(given)))
    assert found == settings_from_keywords(TuneRun, {"objective": "kto", "desirable_weight": 2, "beta": 0.3})
    assert found.preference.parameters == {"beta": 0.3, "desirable_weight": 2.0}


def test_in_a_comparison_a_parameter_goes_to_every_method_that_has_it() -> None:
    methods = ["dpo", "ipo", "kto", "simpo", "orpo", "ppo"]

    def parameters(**given: Any) -> dict[str, dict[str, float]]:
        found = candidates(settings_from_keywords(CompareRun, {"methods": methods, **given}))
        assert [[each.name for each in several] for several in found.values()] == [[method] for method in methods]
        return {method: several[0].parameters for method, several in found.items()}

    plain = parameters()
    assert {name: of.get("beta") for name, of in plain.items() if name != "ppo"} == {
        "dpo": 0.5,  # the quick preset's
        "ipo": 0.1,
        "kto": 0.1,
        "simpo": 2.0,
        "orpo": None,
    }
    given = parameters(beta=0.3, gamma=0.2, ppo_kl_coefficient=0.5)
    assert given["simpo"] == {"beta": 0.3, "gamma": 0.2}
    assert given["orpo"] == {"odds_weight": 0.1}
    assert given["ppo"] == {"kl_coefficient": 0.5}
    said = 'methods: no method has a parameter "gamma": dpo has beta; orpo has odds_weight'
    assert said in complaint(CompareRun, methods=["dpo", "orpo", "ppo"], preference__gamma=1)
    said = "methods: label_smoothing is 0; for exo it must be above 0"
    assert said in complaint(CompareRun, methods=["cdpo", "exo"], preference__label_smoothing=0)


def test_what_a_preset_has_for_a_method_is_for_runs_with_that_method() -> None:
    def beta(**given: Any) -> Any:
        return settings_from_keywords(CompareRun, given).preference.parameters.get("beta")

    assert beta() == {"dpo": (0.5,)}
    assert beta(methods=["ppo"]) is None
    assert beta(methods=["ipo", "ppo"]) is None
    assert beta(beta=[0.2]) == {"": (0.2,)}
    said = 'methods: beta has values for "dpo", which is no method of this run that has it'
    assert said in complaint(CompareRun, methods=["ipo"], preference__beta=["dpo=0.5"])


def test_a_comparison_tries_every_combination_of_the_values_given() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, CompareRun)
    given = ["--methods", "dpo", "simpo", "ppo", "--beta", "0.05", "0.1", "simpo=1", "simpo=2", "--gamma", "0.5,1"]
    flags = parser.parse_args([*given, "--ppo-kl-coefficient", "0.02", "0.1"])
    settings = settings_from(CompareRun, vars(flags))
    assert {each.name: each.parameters for several in candidates(settings).values() for each in several} == {
        "dpo@beta=0.05": {"beta": 0.05},
        "dpo@beta=0.1": {"beta": 0.1},
        "simpo@beta=1@gamma=0.5": {"beta": 1.0, "gamma": 0.5},
        "simpo@beta=1@gamma=1": {"beta": 1.0, "gamma": 1.0},
        "simpo@beta=2@gamma=0.5": {"beta": 2.0, "gamma": 0.5},
        "simpo@beta=2@gamma=1": {"beta": 2.0, "gamma": 1.0},
        "ppo@kl_coefficient=0.02": {"kl_coefficient": 0.02},
        "ppo@kl_coefficient=0.1": {"kl_coefficient": 0.1},
    }
    keywords = {"beta": [0.05, 0.1, "simpo=1", "simpo=2"], "gamma": [0.5, 1], "ppo_kl_coefficient": [0.02, 0.1]}
    assert settings == settings_from_keywords(CompareRun, {"methods": ["dpo", "simpo", "ppo"], **keywords})


def test_of_a_sum_each_term_is_told_with_its_own_value() -> None:
    (plain,) = candidates(settings_from_keywords(CompareRun, {"methods": ["dpo+simpo"]}))["dpo+simpo"]
    assert plain.parameters == {"dpo.beta": 0.1, "simpo.beta": 2.0, "gamma": 1.0}
    (given,) = candidates(settings_from_keywords(CompareRun, {"methods": ["dpo+simpo"], "beta": 0.3}))["dpo+simpo"]
    assert given.parameters == {"beta": 0.3, "gamma": 1.0}


def test_a_grid_survives_yaml(tmp_path: Path) -> None:
    settings = settings_from_keywords(CompareRun, {"methods": ["dpo", "simpo"], "beta": [0.1, 0.3, "simpo=2"]})
    plan = to_mapping(settings)
    assert plan["preference"]["beta"] == [0.1, 0.3, "simpo=2"]
    assert plan["ppo"]["kl_coefficient"] == 0.05  # one value stands as it was given
    assert settings_from(CompareRun, {}, config=written(tmp_path, yaml.safe_dump(plan))) == settings


def test_a_wrong_grid_says_what_is_wrong() -> None:
    methods = ["dpo", "ipo"]
    said = 'methods: beta has values for "simpo", which is no method of this run that has it'
    assert said in complaint(CompareRun, methods=methods, preference__beta=["simpo=1"])
    assert "a parameter of dpo has a value twice" in complaint(
        CompareRun, methods=methods, preference__beta=[0.1, "0.10"]
    )
    nearly = [0.1, 0.10000000000001]  # one name, so one folder
    assert "a parameter of dpo has a value twice" in complaint(CompareRun, methods=["dpo"], preference__beta=nearly)
    said = "methods: beta: simpo has values of its own; 0.05 is for no method"
    assert said in complaint(CompareRun, methods=["simpo"], preference__beta=[0.05, "simpo=2"])
    assert 'is "x"; it must be a number' in complaint(CompareRun, methods=methods, preference__beta="simpo=x")
    assert "ppo.kl_coefficient is -1.0; it must be at least 0" in complaint(CompareRun, ppo__kl_coefficient=[0.1, -1])
    assert "a parameter of ppo has a value twice" in complaint(CompareRun, ppo__kl_coefficient=[0.1, 0.1])
