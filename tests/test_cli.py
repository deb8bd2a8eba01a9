"""The command line, and its commands from Python: bad input is one plain line and exit code 2; good input works."""

import errno
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

import pairtune
from pairtune import disk
from pairtune.cli import HELP, SETTINGS, main
from pairtune.commands import compare, results, tune
from pairtune.configure import read_preset
from pairtune.errors import InputError
from pairtune.models.load import cache_folder, load_model
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.quiet import quiet
from pairtune.report.words import decimal
from pairtune.runs import Run, TuneRun
from pairtune.sampling.sampler import sample
from pairtune.settings_list import settings_of
from pairtune.training import checkpoint

Write = Callable[..., str]
FUNCTIONS = [
    "compare", "sft", "tune", "reward", "ppo", "rloo", "grpo", "online_dpo", "generate", "sample", "evaluate",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models")))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """write(rows, name="pairs.jsonl"): a JSONL file in the test's folder, which is the current one."""
    monkeypatch.chdir(tmp_path)

    def to_file(rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> str:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return name

    return to_file


def pairs(count: int = 24) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Film {i} was", "chosen": " a small wonder, warm", "rejected": " dull and went nowhere"}
        for i in range(count)
    ]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """fails(*words): runs the command, which must end with 2 and one line, and nothing else, on stderr; the line."""

    def run(*words: str, only: bool = True) -> str:
        capsys.readouterr()
        assert main(list(words)) == 2
        said, out = capsys.readouterr().err, capsys.readouterr().out
        lines = said.splitlines()
        assert out == ""
        assert "Traceback" not in said
        assert [line.startswith("pairtune: ") for line in lines].count(True) == 1
        assert lines[-1].startswith("pairtune: ")
        assert len(lines) == 1 or not only, said
        return lines[-1]

    return run


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["tune", "reward", "compare", "sft", "evaluate"])
def test_data_that_cannot_be_used(command: str, model: str, write: Write, fails: Callable[..., str]) -> None:
    def said(rows: list[dict[str, Any]] | bytes) -> str:
        if isinstance(rows, bytes):
            Path("pairs.jsonl").write_bytes(rows)
        else:
            write(rows)
        return fails(command, "--model", model, "--data", "pairs.jsonl", "--out", "new")

    side = "chosen"
    assert '"none.jsonl" does not exist' in fails(command, "--model", model, "--data", "none.jsonl", "--out", "new")
    assert "no column" in said([{"prompt": "a", "choosen": "b", "rejected": "c"}])
    assert f'line 2: "{side}" is empty' in said([pairs()[0], pairs()[1] | {side: ""}])
    assert "line 1: not UTF-8" in said(b'{"prompt": "caf\xe9"}\n')
    assert f'line 2: "{side}" is a number where text belongs' in said([pairs()[0], pairs()[1] | {side: 3}])
    assert "line 1: not JSON" in said(b"prompt: x\n")
    assert "there are no rows" in said(b"")
    assert not Path("new").exists() or [p.name for p in Path("new").iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize("command", ["tune", "reward", "sft", "compare", "generate", "evaluate"])
def test_models_that_cannot_be_used(command: str, model: str, write: Write, fails: Callable[..., str]) -> None:
    rest = ["--data", write(pairs()), "--out", "new"]
    assert 'model "no/such-model"' in fails(command, "--model", "no/such-model", *rest)
    assert 'model folder "./none" does not exist' in fails(command, "--model", "./none", *rest)
    bare = Path("bare")
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    assert "has no tokenizer that can be loaded" in fails(command, "--model", "bare", *rest)
    pickled = Path("pickled")
    shutil.copytree(model, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    assert "unpickles nothing" in fails(command, "--model", "pickled", *rest)


@pytest.mark.parametrize("command", ["tune", "compare"])
@pytest.mark.parametrize("beta", ["0", "-0.1", "nan", "inf", "small"])
def test_beta_must_be_above_0(command: str, beta: str, fails: Callable[..., str]) -> None:
    assert "beta is" in fails(command, "--beta", beta)


def test_nothing_left_to_train_on(model: str, write: Write, fails: Callable[..., str]) -> None:
    given = ["--model", model, "--data", write(pairs(6))]
    assert "no training pairs are left" in fails("tune", *given, "--heldout", "6", only=False)
    assert "whole number of pairs" in fails("tune", *given, "--heldout", "1.5")
    assert "nothing is left to train on - lower --heldout" in fails("compare", *given, "--heldout", "6", only=False)
    write([row | {"prompt": "the same"} for row in pairs(6)])
    assert "every prompt has more than" in fails("reward", *given, only=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tune --model ./modle --data pairs.jsonl", 'model folder "./modle" does not exist; did you mean "model"?'),
        (
            "generate --prompt x --model runs/tunde",
            'model folder "runs/tunde" does not exist; did you mean "runs/tuned"?',
        ),
        ("reward --model gone.gguf --data pairs.jsonl", 'model file "gone.gguf" does not exist'),
        ("evaluate --reference /x/y --data pairs.jsonl", 'model folder "/x/y" does not exist'),
        ("ppo --reward-model runs/reward --data pairs.jsonl", 'model folder "runs/reward" does not exist'),
        ("sft --data pair.jsonl", '"pair.jsonl" does not exist; did you mean "pairs.jsonl"?'),
    ],
)
def test_a_path_that_is_not_there_is_told_before_anything_heavy_is_imported(
    words: str, said: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pairs())
    Path("model").mkdir()
    Path("runs/tuned").mkdir(parents=True)
    monkeypatch.setattr("pairtune.commands.import_module", None)
    assert fails(*words.split()) == f"pairtune: {said}"
    assert [path.name for path in Path("runs").iterdir()] == ["tuned"]


@pytest.mark.parametrize("command", ["tune", "reward", "sft", "compare"])
def test_folders_that_may_not_be_used(command: str, model: str, write: Write, fails: Callable[..., str]) -> None:
    given = [command, "--model", model, "--data", write(pairs()), "--out"]
    assert '"pairs.jsonl" is a file; give a folder' in fails(*given, "pairs.jsonl")
    Path("other").mkdir()
    Path("other/letter.txt").write_text("dear")
    assert '"other" is not empty' in fails(*given, "other")
    assert Path("other/letter.txt").read_text() == "dear"


def test_a_finished_result_is_not_written_over_nor_an_unfinished_one_of_something_else(
    model: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["tune", "--model", model, "--data", write(pairs()), "--dtype", "float32", "--out", "out"]
    monkeypatch.setattr("pairtune.stages.preference.train_preference", interrupt)
    assert main(given) == 130
    assert "unfinished run of other settings" in fails(*given, "--beta", "0.2", only=False)
    write(pairs(23))  # the same path with another content
    assert "unfinished run of other settings, data or model" in fails(*given, only=False)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_another_plan_is_not_written_over(
    model: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["compare", "--data", write(pairs()), "--heldout", "6", "--out", "out"]
    fails(*given, "--model", "./typo")
    # Nothing was done under the plan with the typing error: it may be mended in the same folder.
    monkeypatch.setattr("pairtune.stages.sft.train_sft", interrupt)
    assert main([*given, "--model", model]) == 130
    assert '"out" holds another plan (model' in fails(*given, "--model", "./other")


class Full:
    """A disk without room, as each library would tell it."""

    system = OSError(errno.ENOSPC, "No space left on device")
    safetensors = SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }')


@pytest.mark.parametrize("error", [Full.system, Full.safetensors], ids=["system", "safetensors"])
def test_a_full_disk(
    error: Exception, model: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    given = ["--model", model, "--data", write(pairs()), "--dtype", "float32"]
    monkeypatch.setattr("pairtune.stages.preference.save_model", full)
    assert "no space is left on the disk" in fails("tune", *given, only=False)
    monkeypatch.setattr("pairtune.stages.preference.train_preference", full)
    comparison = [*given, "--heldout", "6", "--methods", "dpo", "--sampling-max-new-tokens", "4"]
    assert "no space is left on the disk" in fails("compare", *comparison, "--out", "c", only=False)


def test_errors_behind_errors_tell_of_a_full_disk() -> None:
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = Full.system
    assert disk.is_full(wrapped)
    assert not disk.is_full(OSError(errno.EACCES, "Permission denied"))
    assert not disk.is_full(None)


def test_a_disk_that_is_too_small_is_told_before_training(
    model: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    said = fails("compare", "--model", model, "--data", write(pairs()), "--heldout", "6", "--out", "c", only=False)
    assert "has 0.0 GB free and this run needs about" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tun", 'no command "tun"; did you mean "tune"?'),
        ("xyzzy", "there are compare, sft"),
        ("", "COMMAND"),
        ("tune --betta 0.1", '--betta; did you mean "--beta"?'),
        ("tune --betta=0.1", '--betta; did you mean "--beta"?'),
        ("compare --ppo-step 3", '--ppo-step; did you mean "--ppo-steps"?'),
        ("tune --xyzzy 3", "has no flag --xyzzy; `pairtune tune --help` lists them"),
        ("derive --jsn", '--jsn; did you mean "--json"?'),
        ("generate a film --prompt was", '"a" is one word too many'),
        ("tune --beta", "--beta: expected one argument"),
        ("tune --seed one", '--seed is "one"; it must be a whole number'),
        ("tune --epochs 1e99 --data pairs.jsonl", '--epochs is "1e99"; it must be at most 1,000'),
        ("tune --bogus 3", "has no flag --bogus; `pairtune tune --help` lists them"),
        ("mine", 'there is no command "mine"; there are compare'),
        ("tune --objective mine --data x.jsonl", 'there is no objective "mine"; the catalogue has dpo'),
        ("tune --output x", '--output; did you mean "--out"?'),
        ("derive --seed one", '--seed is "one"; it must be a whole number'),
        ("derive --worlds 1e99", '--worlds is "1e99"; it must be at most 100,000'),
        ("derive --seed -1", '--seed is "-1"; it must be at least 0'),
        ("derive --worlds 0", '--worlds is "0"; it must be at least 1'),
        ("tune --config none.yaml", 'settings file "none.yaml" does not exist'),
        ("tune --objective dop --data x.jsonl", 'there is no objective "dop"; did you mean "dpop"?'),
        ("compare --methods dpo pppo", 'there is no objective "pppo"; did you mean "ppo"?'),
        ("compare --methods dpo,dpo", "a method is named twice"),
        ("tune --objective orpo --beta 1", 'objective: orpo has no parameter "beta"; its parameters are odds_weight'),
        ("tune --gamma 0.5", 'objective: dpo has no parameter "gamma"; its parameters are beta'),
        ("objectives --jsn", '--jsn; did you mean "--json"?'),
        ("compare --preset quik", 'there is no preset "quik"'),
        ("tune", "data is missing; give --data"),
        ("ppo --data x.jsonl", "reward_model is missing; give --reward-model"),
        ("generate", "give either --prompt TEXT or --data FILE"),
        ("tune --dtype float64 --data pairs.jsonl --model {model}", 'dtype is "float64"; it can be'),
        ("generate --prompt hi --model {model} --out .", '"." is a folder; give a file'),
        ("ppo --data pairs.jsonl --model {model} --reward-model {model}", "is not a reward model"),
    ],
)
def test_wrong_words(words: str, said: str, model: str, write: Write, fails: Callable[..., str]) -> None:
    write(pairs())
    told = "float64" in words or words.startswith("ppo --data")  # of the data, before
    assert said in fails(*words.replace("{model}", model).split(), only=not told)


def test_a_diverged_training_is_told_in_one_line(
    model: str, write: Write, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the gradient's norm is nan")

    monkeypatch.setattr("pairtune.stages.preference.train_preference", diverge)
    said = fails("tune", "--model", model, "--data", write(pairs()), "--dtype", "float32", only=False)
    assert "the training diverged (the gradient's norm is nan)" in said


def test_unwritable_places_are_told(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")

    monkeypatch.setattr(tune, "run", refuse)
    assert '"/elsewhere" may not be written or read' in fails("tune")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    assert main(["tune", "--data", "none.jsonl", "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1].startswith("pairtune: ")


def test_an_error_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(tune, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["tune"])


def test_an_interrupted_command_says_so_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "run", interrupt)
    assert main(["tune"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_output_that_nobody_reads_any_more_is_no_error() -> None:
    script = "import sys; from pairtune.cli import main; sys.exit(main(['derive', '--worlds', '1', '--json']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert "Traceback" not in said


# ---- folders that nobody asked for --------------------------------------------------------------------------------


@pytest.fixture
def run_settings(model: str, write: Write) -> Callable[..., TuneRun]:
    """run_settings(**given): settings of `tune`, the data and the model there."""
    write(pairs())
    return lambda **given: TuneRun(**{"model": model, "data": "pairs.jsonl", **given})


def taken(settings: TuneRun, *, finished: bool = True) -> str:
    """The folder of a run that began, and, if it finished, left a result."""

    def work(folder: Path) -> dict[str, Any]:
        if not finished:
            raise KeyboardInterrupt
        return {}

    with results.stage_of(settings, "tune") as stage, suppress(KeyboardInterrupt):
        stage.run(work)
    return str(stage.folder)


def test_a_free_folder_is_found(run_settings: Callable[..., TuneRun]) -> None:
    assert [taken(run_settings()) for _ in range(3)] == ["runs/tune", "runs/tune-2", "runs/tune-3"]
    shutil.rmtree("runs/tune-2")
    Path("runs/tune-4").mkdir()  # empty, so free
    Path("runs/tune-5").write_text("a file")
    Path("runs/tune-6").mkdir()
    Path("runs/tune-6/letter.txt").write_text("dear")
    Path("runs/tuned").mkdir()
    assert [taken(run_settings()) for _ in range(3)] == ["runs/tune-2", "runs/tune-4", "runs/tune-7"]
    assert [path.name for path in Path("runs/tune-6").iterdir()] == ["letter.txt"]


def test_what_is_unfinished_is_gone_on_with_if_it_is_the_same(run_settings: Callable[..., TuneRun]) -> None:
    assert taken(run_settings(seed=1), finished=False) == "runs/tune"
    assert taken(run_settings(seed=2), finished=False) == "runs/tune-2"
    assert taken(run_settings(seed=1), finished=False) == "runs/tune"
    assert taken(run_settings(seed=3)) == "runs/tune-3"
    assert taken(run_settings(seed=2)) == "runs/tune-2"
    assert taken(run_settings(seed=2)) == "runs/tune-4"  # finished: begun anew
    rows = Path("pairs.jsonl").read_text().splitlines(keepends=True)
    Path("pairs.jsonl").write_text("".join(rows[:-1]))  # the same name, other data
    assert taken(run_settings(seed=1)) == "runs/tune-5"
    Path("pairs.jsonl").write_text("".join(rows))
    shutil.copytree("runs/tune", "runs/tune-9")
    os.utime("runs/tune/settings.json", (0, 0))
    assert taken(run_settings(seed=1)) == "runs/tune-9"  # the newest of two
    Path("runs/tune/settings.json").write_text("{")  # damaged: nobody's
    assert taken(run_settings(seed=1)) == "runs/tune-6"


def test_two_runs_at_once_do_not_share_a_folder(run_settings: Callable[..., TuneRun]) -> None:
    with results.stage_of(run_settings(), "tune") as first, results.stage_of(run_settings(), "tune") as other:
        with pytest.raises(KeyboardInterrupt):
            first.run(interrupt)
        assert (str(first.folder), str(other.folder)) == ("runs/tune", "runs/tune-2")
        with results.stage_of(run_settings(), "tune") as third:  # the first is the same and unfinished, but busy
            assert str(third.folder) == "runs/tune-3"
        asked = run_settings(out="runs/tune")
        with (
            pytest.raises(InputError, match=rf'another run \(process {os.getpid()}\) is writing to "runs/tune"'),
            results.stage_of(asked, ""),
        ):
            pass
    assert [path.name for path in Path("runs").iterdir()] == ["tune"]  # nothing was written in the others


def test_nothing_is_left_behind_where_nothing_was_written(run_settings: Callable[..., TuneRun]) -> None:
    Path("mine").mkdir()
    for out in ("", "deep/er/out", "mine"):
        with pytest.raises(InputError), results.stage_of(run_settings(out=out), "tune"):
            raise InputError("no")
    assert sorted(path.name for path in Path().iterdir()) == ["mine", "pairs.jsonl"]


def test_a_folder_that_is_taken_says_what_to_do(run_settings: Callable[..., TuneRun]) -> None:
    taken(run_settings(out="mine"), finished=False)
    with (
        pytest.raises(InputError, match=r"of other settings, data or model \(seed\); give another --out, or none"),
        results.stage_of(run_settings(out="mine", seed=1), "tune"),
    ):
        pass
    taken(run_settings(out="mine"))
    with (
        pytest.raises(InputError, match=r"holds a finished result; give another --out, or none .* or remove it"),
        results.stage_of(run_settings(out="mine"), "tune"),
    ):
        pass
    assert taken(run_settings(), finished=False) == "runs/tune"


def test_a_finished_run_given_again_says_so_by_whatever_path(
    run_settings: Callable[..., TuneRun],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken(run_settings(out="mine"))
    held = run_settings(out="mine").heldout
    words = ["tune", "--model", run_settings().model, "--data", "pairs.jsonl", "--heldout", str(held), "--out"]
    capsys.readouterr()
    Path("mine").rename("other")
    for out in ("other", "other/", "./other", str(Path("other").absolute())):
        assert main([*words, out]) == 0
        assert "holds the finished result of this very run; nothing is left to do" in capsys.readouterr().err
    assert main([*words, "other", "--seed", "1"]) == 2
    write(pairs()[:-1])
    assert main([*words, "other"]) == 2, "of other data"
    assert sorted(path.name for path in Path("other").iterdir()) == ["result.json", "settings.json"]


def test_a_finished_result_that_is_damaged_is_named_and_made_again(
    run_settings: Callable[..., TuneRun], capsys: pytest.CaptureFixture[str]
) -> None:
    taken(run_settings(out="mine"))
    Path("mine/notes.txt").write_text("dear")
    Path("mine/settings.json").write_text(Path("mine/settings.json").read_text() + " ")
    capsys.readouterr()
    assert taken(run_settings(out="mine")) == "mine"
    assert "mine: settings.json is not what was written; making it again" in capsys.readouterr().err
    assert Path("mine/notes.txt").read_text() == "dear"
    with pytest.raises(InputError, match="holds a finished result"):
        taken(run_settings(out="mine"))


def test_a_result_of_the_old_layout_is_left_alone(run_settings: Callable[..., TuneRun]) -> None:
    taken(run_settings(out="mine"))
    Path("mine/result.json").write_text('{"pairs": 3}')
    with pytest.raises(InputError, match="holds a finished result"):
        taken(run_settings(out="mine"))
    assert Path("mine/result.json").read_text() == '{"pairs": 3}'


# ---- libraries keep quiet -----------------------------------------------------------------------------------------


def test_libraries_are_quiet_inside_and_as_they_were_outside(capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as theirs

    def state() -> tuple[Any, ...]:
        bars = (theirs.is_progress_bar_enabled(), are_progress_bars_disabled())
        level = logging.getLogger("huggingface_hub").level
        return theirs.get_verbosity(), *bars, level, list(warnings.filters), dict(os.environ)

    theirs.set_verbosity_info()
    before = state()
    with quiet():
        assert not theirs.is_progress_bar_enabled()
        assert are_progress_bars_disabled()
        assert list(theirs.tqdm([1, 2])) == [1, 2]
        theirs.get_logger("transformers.x").warning("advice")
        warnings.warn_explicit("advice", UserWarning, "transformers/x.py", 1, module="transformers.x")
    assert state() == before
    with pytest.raises(ValueError, match="x"), quiet():
        raise ValueError("x")
    assert state() == before
    theirs.set_verbosity_warning()
    assert capfd.readouterr() == ("", "")


def test_functions_are_as_quiet_as_commands(
    model: str, write: Write, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write([{"prompt": "Film 1 was"}], "prompts.jsonl")
    capfd.readouterr()
    pairtune.generate(model=model, data="prompts.jsonl", max_new_tokens=2, dtype="float32")
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["data", "machine", "next"]


# ---- help and imports ---------------------------------------------------------------------------------------------


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--help` prints on a terminal of 80 columns."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main([*([command] if command else []), "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", HELP)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    word = {
        "report": " DIR",
        "verify": " DIR",
        "check": " [DATA]",
        "check-loss": " [LOSS]",
        "grade": " [NOTEBOOK]",
    }.get(command, "")
    said = f"{HELP[command][0].upper()}{HELP[command][1:]}.\n"
    assert text.startswith(f"usage: pairtune {command}{word} [options]\n\n{said}")
    assert max(map(len, text.splitlines())) <= 80
    for setting in settings_of(SETTINGS[command]):
        if setting.key == "folder":
            continue
        assert f"--{setting.name.replace('_', '-')} " in text or f"--{setting.name.replace('_', '-')}, " in text
    assert '""' not in text
    assert "None" not in text
    assert "(default: )" not in text


def test_the_help_of_all_gives_a_first_command_and_a_line_to_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of("", capsys).splitlines()
    assert max(map(len, lines)) <= 80
    assert "  pairtune compare " in "\n".join(lines)
    for command, text in HELP.items():
        assert [line.split(maxsplit=1) for line in lines].count([command, text]) == 1


@pytest.mark.parametrize(
    ("command", "first", "required"),
    [
        ("compare", "model data out methods preset", ""),
        ("sft", "model data out", "data"),
        ("tune", "model data out objective", "data"),
        ("reward", "model data out", "data"),
        ("ppo", "model reward-model data out", "reward-model data"),
        ("online-dpo", "model reward-model data out objective", "reward-model data"),
        ("sample", "model reward-model data out answers-per-prompt write", "reward-model data out"),
        ("generate", "model prompt data out", ""),
        ("evaluate", "model reference data out", "reference data"),
    ],
)
def test_the_help_has_first_what_people_give_and_last_the_machine(
    command: str, first: str, required: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    flags = re.findall(r"^  --([\w-]+)", text, re.MULTILINE)
    assert flags[: len(first.split())] == first.split()
    assert flags[-5:-2] == ["seed", "dtype", "trust-remote-code"]
    metavars = dict(re.findall(r"^  --([\w-]+) ([A-Z]+)\b", text, re.MULTILINE))
    assert {metavars[name] for name in ("model", "reference", "judge", "reward-model") if name in metavars} == {"MODEL"}
    assert (metavars["data"], metavars.get("prompt", "TEXT")) == ("FILE", "TEXT")
    assert metavars["out"] == ("FILE" if command in ("generate", "sample", "evaluate") else "FOLDER")
    entries = re.split(r"^  (?=--)", text, flags=re.MULTILINE)[1:]
    told = [entry.split()[0].removeprefix("--") for entry in entries if "(required)" in " ".join(entry.split())]
    assert told == required.split()


@pytest.mark.parametrize("command", ["tune", "compare"])
def test_the_help_says_what_a_parameter_means_to_each_objective(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = re.split(r"^  (?=--)", help_of(command, capsys), flags=re.MULTILINE)[1:]
    told = {entry.split()[0].removeprefix("--").replace("-", "_"): " ".join(entry.split()) for entry in entries}
    for name, objective in OBJECTIVES.items():
        for key, parameter in objective.parameters.items():
            after = told[key].partition(f"{parameter.meaning} [")[2].partition("]")[0]
            takers = {taker: group.rpartition(": ")[2] for group in after.split("; ") for taker in takers_of(group)}
            assert takers[name] == f"{parameter.default:g}"


def takers_of(group: str) -> list[str]:
    """dpo and cdpo, of "dpo, cdpo: 0.1"."""
    return group.rpartition(": ")[0].split(", ")


def test_the_help_of_compare_says_what_its_presets_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("compare", capsys).split())
    for preset in ("quick", "chapter"):
        assert f"{preset}: " in text
    assert "the defaults here are quick's (default: quick)" in text
    assert (
        f"training pairs; of one's own data at most so many, as they allow (default: {read_preset('quick')['pairs']})"
        in text
    )


def test_no_help_imports_anything_heavy() -> None:
    script = (
        "import sys, contextlib, io; from pairtune.cli import HELP, main\n"
        "for command in HELP:\n"
        "  with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main([command, '--help'])\n"
        "heavy = ('torch', 'transformers', 'datasets', 'numpy', 'scipy', 'sklearn', 'matplotlib')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("pairtune ")


@pytest.mark.parametrize("module", ["pairtune", "pairtune.cli", "pairtune.api"])
def test_importing_it_imports_nothing_heavy(module: str) -> None:
    script = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---- the public surface -------------------------------------------------------------------------------------------


def test_the_public_surface_is_what_is_written_down() -> None:
    trained = ["grpo", "online_dpo", "ppo", "reward", "rloo", "sample", "sft", "tune"]
    own = ["check_loss", "compare", "evaluate", "generate"]
    assert sorted(pairtune.__all__) == sorted(["InputError", "log_probs", *own, *trained])
    assert set(pairtune.__all__) <= set(dir(pairtune))
    for name in pairtune.__all__:
        assert getattr(pairtune, name).__doc__
    assert pairtune.InputError is InputError
    with pytest.raises(AttributeError, match="no attribute 'tun'"):
        pairtune.tun  # noqa: B018


def test_every_command_that_has_settings_is_a_function() -> None:
    assert [name.replace("-", "_") for name, kind in SETTINGS.items() if issubclass(kind, Run)] == FUNCTIONS
    assert set(FUNCTIONS) == set(pairtune.__all__) - {"InputError", "check_loss", "log_probs"}
    assert list(HELP) == list(SETTINGS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_what_they_do_not_know(name: str) -> None:
    with pytest.raises(InputError, match='no setting "sede"; did you mean "seed"'):
        getattr(pairtune, name)(sede=3)


def test_functions_and_flags_make_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(compare, "run", seen.append)
    (tmp_path / "run.yaml").write_text("seed: 5\nppo: {steps: 3}\n")
    main(["compare", "--beta", "0.2", "--ppo-steps", "4", "--methods", "dpo", "--config", str(tmp_path / "run.yaml")])
    pairtune.compare(beta=0.2, ppo_steps=4, methods=["dpo"], config=str(tmp_path / "run.yaml"))
    pairtune.compare(**{"preference.beta": 0.2, "ppo.steps": 4, "methods": "dpo", "seed": 5})
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0].seed, seen[0].ppo.steps, seen[0].preference.parameters) == (5, 4, {"beta": {"": (0.2,)}})


# ---- every step, end to end ---------------------------------------------------------------------------------------


def json_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def loads(folder: str) -> Any:
    """The result as anybody else would load it."""
    tokenizer, loaded = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.use_cache
    ids = tokenizer("The film", return_tensors="pt")["input_ids"]
    assert torch.isfinite(loaded(input_ids=ids).logits).all()
    return loaded


def test_every_step_end_to_end(
    model: str, write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path, cpu: Any
) -> None:
    data = ["--data", write(pairs()), "--dtype", "float32"]
    before = load_model(model, cpu).state_dict()

    assert main(["sft", "--model", model, *data, "--batch-size", "8"]) == 0
    assert any(not torch.equal(before[name], value) for name, value in loads("runs/sft").state_dict().items())
    result = json.loads(Path("runs/sft/result.json").read_text())
    assert result["demonstrations"] == 24
    assert result["cost"]["tokens"] > 0

    capsys.readouterr()
    assert main(["tune", "--model", "runs/sft", *data, "--learning-rate", "1e-3", "--epochs", "3"]) == 0
    said = capsys.readouterr().err
    assert "out: runs/tune\n" in said
    at_chance = "cannot be told from chance (50%) with 2 pairs: 60% would be with about 110\n"
    assert f"held-out accuracy: 100.0% (95% interval 15.8 to 100.0%, n = 2); {at_chance}" in said
    assert said.count("response wins") == 1
    assert "so the first loss is ln 2" in said
    last = "next: pairtune evaluate --model runs/tune --reference runs/sft --data OTHER_PAIRS"
    assert said.splitlines()[-1] == last
    loads("runs/tune")
    result = json.loads(Path("runs/tune/result.json").read_text())
    assert result["pairs"] + result["heldout_accuracy"]["n"] == 24
    assert result["heldout_accuracy"]["mean"] == 1  # every pair prefers the same words
    assert [row["step"] for row in json_lines("runs/tune/records.jsonl")] == list(range(1, 7))
    assert not Path("runs/tune/checkpoint.safetensors").exists()

    assert main(["reward", "--model", "runs/sft", *data, "--learning-rate", "1e-3", "--epochs", "3"]) == 0
    loads("runs/reward")
    assert json.loads(Path("runs/reward/result.json").read_text())["heldout_accuracy"]["mean"] == 1

    limits = ["--steps", "2", "--batch-size", "4", "--sampling-max-new-tokens", "4"]
    capsys.readouterr()
    assert main(["ppo", "--model", "runs/sft", "--reward-model", "runs/reward", *data, *limits]) == 0
    loads("runs/ppo")
    said, rows = capsys.readouterr().err, json_lines("runs/ppo/records.jsonl")
    for title, told in (
        ("Reward-model score, sd", [rows[0]["reward"], rows[-1]["reward"]]),
        ("KL from the reference, nats per response", [rows[-1]["kl"]]),
    ):
        (line,) = (line for line in said.splitlines() if line.startswith(title))
        assert all(f"{decimal(mean)} (" in line for mean in told)
        assert line.count("n = 4)") == len(told)

    capsys.readouterr()
    answer = ["generate", "--model", "runs/tune", "--prompt", "Film 1 was", "--max-new-tokens", "4"]
    assert main(answer) == 0
    once = capsys.readouterr().out
    assert main(answer) == 0
    assert capsys.readouterr().out == once != ""
    assert main(["generate", "--model", "runs/tune", *data, "--max-new-tokens", "4", "--out", "deep/er/a.jsonl"]) == 0
    assert [row["prompt"] for row in json_lines("deep/er/a.jsonl")] == [pair["prompt"] for pair in pairs()]

    capsys.readouterr()
    measure = ["evaluate", "--reference", "runs/sft", *data, "--sampling-max-new-tokens", "4"]
    assert main([*measure, "--model", "runs/tune", "--reward-model", "runs/reward", "--out", "figures.json"]) == 0
    output = capsys.readouterr()
    figures = json.loads(Path("figures.json").read_text())
    assert figures["accuracy"]["mean"] == 1
    assert figures["prompts_trained_on"] == {"mean": 1, "n": 24, "ci95": None}
    assert "data: 24 of the 24 prompts were trained on, by this model or one that it was made from" in output.err
    assert "accuracy: 100.0%; not held out: 24 of the 24 prompts were trained on\n" in output.err
    lines = output.out.splitlines()
    assert lines[0].strip() == "runs/tune beside runs/sft, 24 pairs"
    assert re.fullmatch(r"Accuracy, not held out +100\.0% +85\.8 to 100\.0% +24", lines[3].strip())
    assert len(lines) == 3 + len(figures)
    numbers = re.findall(r"\d[\d.]*", output.out)
    assert all(len(number.replace(".", "").lstrip("0")) <= 4 for number in numbers), "more digits say no more"
    assert "next: pairtune compare --model runs/sft --data TRAINING_PAIRS" in output.err
    assert set(figures) == {
        "accuracy",
        "prompts_trained_on",
        "kl_from_reference",
        "response_tokens",
        "repetition",
        "reward_model_score",
        "chosen_nats_per_token",
        "chosen_fell",
        "distinct_bigrams",
    }
    assert main([*measure, "--model", "runs/sft", "--out", "itself.json"]) == 0
    itself = json.loads(Path("itself.json").read_text())
    assert itself["accuracy"]["mean"] == 0.5
    assert itself["kl_from_reference"]["mean"] == 0
    assert "accuracy: 50.0%; cannot be told from chance (50%) with 24 pairs: 60%" in capsys.readouterr().err
    again = ["--model", model, "--reference", model, "--out", "itself.json"]
    assert main([*measure, *again]) == 2
    assert json.loads(Path("itself.json").read_text()) == itself
    assert 'out: "itself.json" exists; give another, or --overwrite' in capsys.readouterr().err
    assert main([*measure, *again, "--overwrite"]) == 0
    assert json.loads(Path("itself.json").read_text())["heldout_accuracy"]["mean"] == 0.5
    assert "held-out accuracy: 50.0%; cannot be told from chance (50%) with 24 pairs: 60%" in capsys.readouterr().err


def test_an_interrupted_step_command_goes_on_and_ends_as_if_never_stopped(
    model: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["tune", "--model", model, "--data", write(pairs()), "--dtype", "float32", "--batch-size", "4"]
    assert main([*given, "--out", "whole"]) == 0
    keep = checkpoint.Journal.checkpoint

    def stop_at_2(self: Any, step: int, *others: Any, stopping: bool, due: bool) -> None:
        keep(self, step, *others, stopping=step == 2, due=due)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Journal, "checkpoint", stop_at_2)
        assert main([*given, "--out", "parts"]) == 130
    assert not Path("parts/result.json").exists()
    assert main([*given, "--out", "parts"]) == 0
    assert Path("parts/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    costs = [json.loads(Path(folder, "result.json").read_text())["cost"] for folder in ("whole", "parts")]
    assert costs[0]["tokens"] == costs[1]["tokens"]

    # The same without a folder that was asked for: gone on with where it is, then left alone.
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Journal, "checkpoint", stop_at_2)
        assert main(given) == 130
    assert main([*given, "--beta", "0.2"]) == 0  # something else: passes by
    assert not Path("runs/tune/result.json").exists()
    assert main(given) == 0
    assert Path("runs/tune/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert main(given) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tune", "tune-2", "tune-3"]
    assert Path("runs/tune-3/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_chat_models_template_is_kept(tiny_folder: Any, write: Write) -> None:
    folder = tiny_folder(Path(), chat=True)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in pairs()
    ]
    out = pairtune.tune(model=folder, data=write(rows), dtype="float32", out="out")
    assert out == Path("out")
    assert AutoTokenizer.from_pretrained("out").chat_template == AutoTokenizer.from_pretrained(folder).chat_template


@pytest.fixture
def chat(tiny_folder: Any, tmp_path: Path) -> str:
    """A model whose turns end in </s> and whose generation config declares a further end."""
    folder = tiny_folder(tmp_path, chat=True)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [1, 7]}))
    return str(folder)


def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Any], tuple[int, ...]]]:
    """What the sampler is given from now on: prompts and ends."""
    seen: list[tuple[list[Any], tuple[int, ...]]] = []

    def watched(model: Any, prompts: Any, *, end_ids: Any, **others: Any) -> Any:
        seen.append((list(prompts), tuple(end_ids)))
        return sample(model, prompts, end_ids=end_ids, **others)

    for module in ("commands.generate", "evaluation.policy", "training.online"):
        monkeypatch.setattr(f"pairtune.{module}.sample", watched)
    return seen


def test_a_chat_model_is_asked_as_its_user_would(
    chat: str, model: str, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, tokenizer = asked(monkeypatch), AutoTokenizer.from_pretrained(chat)
    few = ["--max-new-tokens", "3", "--dtype", "float32"]

    def texts(*words: str, name: str = chat) -> list[str]:
        assert main(["generate", "--model", name, *words, *few]) == 0
        return [tokenizer.decode(prompt) for prompt in seen[-1][0]]

    assert texts("--prompt", "Hi") == ["<s>user: Hi</s><s>assistant: "]
    assert seen[-1][1] == (1, 7)
    assert texts("--prompt", "Hi", "--system", "Be brief.") == ["<s>system: Be brief.</s><s>user: Hi</s><s>assistant: "]
    assert texts("--prompt", "Hi", "--prompt-format", "text") == ["Hi"]
    assert texts("--prompt", "Hi", name=model) == ["Hi"]
    assert texts("--prompt", "Hi", "--system", "A", name=model) == ["System: A\n\nHuman: Hi\n\nAssistant:"]
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "I."},
        {"role": "user", "content": "So?"},
    ]
    source = write([{"prompt": "Text"}, {"prompt": turns}])
    capsys.readouterr()
    dialogue = "<s>user: Who?</s><s>assistant: I.</s><s>user: So?</s><s>assistant: "
    assert texts("--data", source) == ["<s>user: Text</s><s>assistant: ", dialogue]
    assert texts("--data", source, "--prompt-format", "text") == ["Text", dialogue]
    shown = capsys.readouterr().out
    assert shown.startswith("Text\n  -> ")
    assert "\nSo?\n  -> " in shown
    assert "<s>" not in shown
    assert texts("--data", source, "--out", "a.jsonl")
    assert [row["prompt"] for row in json_lines("a.jsonl")] == [[{"role": "user", "content": "Text"}], turns]


def test_long_prompts_are_shortened_alike_by_all_who_ask(
    chat: str, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole turns, or words; told with the row."""
    seen, tokenizer = asked(monkeypatch), AutoTokenizer.from_pretrained(chat)
    text = ["--prompt-format", "text"]
    few = ["--max-tokens", "60", "--dtype", "float32", "--sampling-max-new-tokens", "3", *text]
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "I. " * 20},
        {"role": "user", "content": "So?"},
    ]
    rows = [
        {"prompt": prompt, "chosen": f"Good {i}", "rejected": f"Bad {i}"}
        for i, prompt in enumerate([turns, "Film " + "was dull " * 30, "Hi", "Ho", "Who", "Emma"])
    ]
    source = write(rows)
    shortened = "prompts lost their beginning to --max-tokens; raise it to keep them whole (rows"
    assert main(["reward", "--model", chat, "--data", source, "--dtype", "float32", "--heldout", "2", *text]) == 0
    capsys.readouterr()
    assert main(["ppo", "--model", chat, "--reward-model", "runs/reward", "--data", source, *few, "--steps", "1"]) == 0
    assert f"data: 2 {shortened} 1, 2)" in capsys.readouterr().err
    texts = {tokenizer.decode(prompt) for prompt in seen[-1][0]}
    assert seen[-1][1] == (1, 7)
    generate = ["generate", "--model", chat, "--data", source, "--max-tokens", "60", "--max-new-tokens", "3"]
    assert main([*generate, *text]) == 0
    assert f"data: 2 {shortened} 1, 2)" in capsys.readouterr().err
    of_generate = [tokenizer.decode(prompt) for prompt in seen[-1][0]]
    assert of_generate[0] == "<s>user: So?</s><s>assistant: "
    assert of_generate[1].startswith(("was dull", "dull was"))
    assert len(seen[-1][0][1]) <= 60
    assert texts <= set(of_generate)
    assert main(["evaluate", "--model", chat, "--reference", chat, "--data", source, *few, "--prompts", "6"]) == 0
    assert f"data: 2 {shortened} 1, 2)" in capsys.readouterr().err
    assert tokenizer.decode(seen[-1][0][0]) == of_generate[0]
    assert seen[-1][1] == (1, 7)
    capsys.readouterr()
    long = ["generate", "--model", chat, "--prompt", "was dull " * 60, "--max-tokens", "60", "--max-new-tokens", "3"]
    assert main(long) == 0
    assert (
        "data: 1 prompt lost its beginning to --max-tokens; raise it to keep it whole (row 1)"
        in capsys.readouterr().err
    )
    assert len(seen[-1][0][0]) <= 60


def test_a_model_trained_with_prompts_taken_for_something_else_is_told(
    chat: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    data, few = ["--data", write(pairs()), "--dtype", "float32"], ["--steps", "1", "--sampling-max-new-tokens", "3"]
    assert main(["reward", "--model", chat, *data]) == 0
    assert json.loads(Path("runs/reward/result.json").read_text())["prompt_format"] == "text"
    ppo = ["ppo", "--model", chat, "--reward-model", "runs/reward", *data, *few, "--batch-size", "4"]
    capsys.readouterr()
    assert main(ppo) == 0
    assert "was trained with text prompts" not in capsys.readouterr().err
    assert main([*ppo, "--prompt-format", "chat"]) == 0
    said = (
        "data: runs/reward was trained with text prompts as text that the answer goes on from; --prompt-format text for"
    )
    assert said in capsys.readouterr().err


def test_columns_by_other_names_and_rows_left_out(
    model: str, write: Write, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    rows = [{"frage": f"Film {i} was", "gut": " warm", "schlecht": " dull" if i != 7 else " "} for i in range(24)]
    words = ["reward", "--model", model, "--data", write(rows), "--dtype", "float32", "--out", "out", "--columns"]
    assert main([*words, "prompt=frage", "chosen=gut", "rejected=schlecht"]) == 0
    said = capsys.readouterr().err
    assert "data: prompt, chosen, rejected, 24 rows\n" in said
    assert 'data: 1 row (row 8) left out: "rejected" is empty\n' in said
    assert json_lines("out/left-out.jsonl") == [{"file": "pairs.jsonl", "line": 8, "reason": '"rejected" is empty'}]
    words[words.index("out")] = "other"
    strict = [*words, "prompt=frage", "chosen=gut", "rejected=schlecht", "--strict"]
    assert 'pairs.jsonl line 8: "rejected" is empty; every response needs text' in fails(*strict)
    assert 'columns: "frage" is not OURS=THEIRS; write prompt=question, say' in fails(*words, "frage")


def test_words_of_generate_that_do_not_go_together(chat: str, write: Write, fails: Callable[..., str]) -> None:
    source = write([{"prompt": "Hi"}])
    assert "--system goes with --prompt" in fails("generate", "--data", source, "--system", "Be brief.")
    text = ["--prompt-format", "text"]
    assert "--system is a turn; give one of them" in fails("generate", "--prompt", "Hi", *text, "--system", "A")
    assert "must be one of auto, chat, text" in fails("generate", "--prompt", "Hi", "--prompt-format", "txt")
    path = Path(chat) / "chat_template.jinja"
    path.write_text("{{ raise_exception('System role not\nsupported') }}")
    said = fails("generate", "--model", chat, "--prompt", "Hi", "--system", "A")
    assert said == 'pairtune: --prompt: the chat template refuses it: "System role not supported"'


# ---- objectives that need less, or other data, than DPO -----------------------------------------------------------


def test_a_reference_free_objective_computes_no_reference(
    model: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", model, "--data", write(pairs()), "--dtype", "float32", "--learning-rate", "1e-3"]
    assert main(["tune", *given, "--objective", "simpo", "--beta", "2", "--gamma", "0.5", "--epochs", "3"]) == 0
    assert not (cache_folder() / "reference").exists()
    result = json.loads(Path("runs/tune/result.json").read_text())
    assert "heldout_accuracy" not in result
    assert result["heldout_own_accuracy"]["mean"] == 1
    assert json.loads(Path("runs/tune/settings.json").read_text())["preference"]["gamma"] == 0.5
    said = capsys.readouterr().err
    assert "first loss" not in said
    assert "reference 0/" not in said
    assert "held-out accuracy by the objective's own criterion: 100.0%" in said
    assert re.search(r"  before: [\d.]+%; (higher|whether training changed it cannot be told with 2 pairs)", said)


def labelled(count: int = 24) -> list[dict[str, Any]]:
    """All desirable rows, then all undesirable ones."""
    return [
        {"prompt": f"Film {i} was", "response": pair[side], "label": side == "chosen"}
        for side in ("chosen", "rejected")
        for i, pair in enumerate(pairs(count))
    ]


def test_kto_on_single_responses_with_labels(
    model: str, write: Write, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", model, "--data", write(labelled()), "--dtype", "float32", "--learning-rate", "1e-3"]
    capsys.readouterr()
    assert main(["tune", *given, "--objective", "kto+0.5*bco", "--epochs", "3"]) == 0
    told = capsys.readouterr().err
    assert re.search(r"^held-out loss: 0\.\d+ \((95% interval|no interval|all alike).* n = \d\)$", told, re.MULTILINE)
    assert re.search(r"^a desirable held-out response moved up by more .*: 100\.0% ", told, re.MULTILINE)
    assert re.search(r"^loss: kto 0\.5 \(59%\), 0\.5\*bco 0\.347 \(41%\)$", told, re.MULTILINE)
    assert "first loss is" not in told
    assert told.splitlines()[-1].startswith("next: pairtune generate --model runs/tune --prompt TEXT"), (
        "there may be no pairs"
    )
    result = json.loads(Path("runs/tune/result.json").read_text())
    assert result["responses"] + result["heldout_loss"]["n"] == 48
    assert result["heldout_loss"]["mean"] < 0.5 + 0.5 * math.log(2)  # where it began
    last = json_lines("runs/tune/records.jsonl")[-1]
    assert last["desirable_logratio"] > last["undesirable_logratio"]

    said = fails("tune", *given, "--out", "other")
    assert "holds single responses with labels, and dpo takes pairs; objectives that take labels are kto, bco" in said
    one_sided = write([row for row in labelled() if row["label"]], "good.jsonl")
    assert "every row has the same label" in fails(
        "tune", "--objective", "kto", "--data", one_sided, "--out", "other", only=False
    )
    wrong = write([{"prompt": "x", "response": "y", "label": "perhaps"}], "wrong.jsonl")
    assert '"label" is "perhaps"; it must be true (desirable) or false' in fails(
        "tune", "--objective", "kto", "--data", wrong, "--out", "other"
    )


def test_one_prompt_is_too_little_for_kto(model: str, write: Write, fails: Callable[..., str]) -> None:
    """Its baseline needs responses to other prompts, on the held-out side too."""
    given = ["tune", "--model", model, "--data", write(pairs(6)), "--dtype", "float32", "--objective", "kto"]
    assert "all rows have the same prompt; hold out more" in fails(*given, "--heldout", "1", only=False)


def test_a_finished_run_given_again_forgets_the_checkpoint_that_a_kill_left(
    run_settings: Callable[..., TuneRun],
) -> None:
    settings = run_settings(out="runs/mine")
    taken(settings)
    left = Path("runs/mine/checkpoint.earlier.safetensors")
    left.write_text("left")
    assert results.is_done(settings, "tune")
    assert not left.exists()
