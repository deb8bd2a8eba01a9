"""Whatever is wrong in an invocation is one clear line and exit code 2, for every setting of every command."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pairtune import cli, disk, hub, own
from pairtune.cli import SETTINGS, main
from pairtune.errors import InputError
from pairtune.flags import flag
from pairtune.settings import FILE, FOLDER, MODEL, Values
from pairtune.settings_list import Setting, settings_of

NUMBERS = (int, float, tuple[float, ...], Values)
# No number that a setting takes, in any way of writing one.
NO_NUMBER = ("nan", "inf", "-inf", "1e999", "true", "", "0x10", "1;2", "9" * 5000, "-1e99", "1e99", "\ud800", "١e99")
# What --config can say and a flag cannot.
TEXT = "'a\\0b'"  # of no NUL: a backslash and a 0, which is no number, and might be a file
NO_VALUE = (
    ".nan",
    "-.inf",
    "yes",
    "null",
    "{a: 1}",
    "[[1]]",
    "2020-01-01",
    "!!binary aGk=",
    TEXT,
    '"a\\0b"',
    "!x y",
    "*a",
)


def wrong_flags(setting: Setting) -> Iterator[list[str]]:
    """Invocations that say something wrong of the setting."""
    if setting.kind in NUMBERS:
        yield from ([f"{flag(setting)}={value}"] for value in NO_NUMBER)
    elif setting.kind is bool:
        yield [f"{flag(setting)}=1"]
    elif setting.choices:
        yield from ([f"{flag(setting)}={value}"] for value in ("", "nonesuch", "\0"))
    elif setting.value in (MODEL, FILE, FOLDER):
        yield [f"{flag(setting)}=a\0b"]


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: str, settings: object) -> None:
        raise AssertionError(f"{command} would have run")

    monkeypatch.setattr(cli.commands, "run", run)


def refused(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """That the invocation is refused, and the one line that says why."""
    arguments = [command, *words]
    try:
        assert main(arguments) == 2
    except Exception as error:
        raise AssertionError(arguments) from error
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("pairtune: "), (arguments, err)
    assert err.count("\n") == 1, (arguments, err)
    assert len(err) < 3000, (arguments, err)
    return err


@pytest.mark.parametrize("command", SETTINGS)
def test_every_setting_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [setting for setting in settings_of(SETTINGS[command]) if setting.value != "DIR"]
    for place, setting in enumerate(settings):
        tried = list(wrong_flags(setting))
        for words in tried if command in ("ppo", "derive") else tried[place % 5 :: 5]:
            said = refused(command, ["DIR", *words] if command == "report" else words, capsys)
            assert setting.name in said.replace("-", "_"), said


def test_the_list_is_long() -> None:
    assert sum(len(list(wrong_flags(s))) for kind in SETTINGS.values() for s in settings_of(kind)) > 250


@pytest.mark.parametrize("command", ["tune", "ppo", "compare"])
def test_what_only_a_settings_file_can_say(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    settings = [
        setting for setting in settings_of(SETTINGS[command]) if setting.kind in NUMBERS or setting.value == FILE
    ]
    for setting, value in zip(settings, itertools.cycle(NO_VALUE), strict=False):
        wrong = NO_VALUE[-3] if setting.value == FILE and value == TEXT else value
        path.write_text(f"{setting.name}: {wrong}\n", encoding="utf-8")
        refused(command, ["--config", str(path)], capsys)


BOMB = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a0: &a0 [x, x]\n" + BOMB, "(*name)"),
        ("model: &a [*a]\n", "(*name)"),
        ("x: &x {a: 1}\ny: {<<: [*x, *x]}\n", "(*name)"),
        ("model: !!python/object/apply:os.system [ls]\n", "constructor"),
        ("model: " + "[" * 5000, "not YAML"),
        ("".join(" " * i + "a:\n" for i in range(400)), "not YAML"),
        ("model: " + "x" * 10_000_000, "larger than 100,000 bytes"),
        ("model: a\0b", "not YAML"),
        ("beta: " + "9" * 5000, "not YAML"),
        ("--- a\n--- b\n", "not YAML"),
        ("- a\n", "must hold"),
    ],
)
def test_a_settings_file_that_is_none(text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert word in refused("tune", ["--config", str(tmp_path / "run.yaml")], capsys)


def test_nothing_waits_for_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no ordinary file" in refused("tune", ["--config", str(tmp_path / "pipe")], capsys)


def test_a_result_takes_no_devices_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no ordinary file"):
        disk.write(tmp_path / "pipe", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert not (tmp_path / "pipe").is_file()


def test_a_line_about_a_name_of_a_million_letters_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    refused("tune", ["a" * 1_000_000], capsys)
    refused("a" * 1_000_000, [], capsys)


def test_an_own_function_that_exits_ends_nothing_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import sys\ndef rows():\n    sys.exit(3)\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.py:rows failed at line 3: SystemExit: 3"):
        list(own.rows("mine.py:rows"))


def test_a_link_to_nothing_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gone").symlink_to("nowhere")
    Path("round").symlink_to("round")
    for name in ("gone", "round"):
        with pytest.raises(InputError, match=f'dataset "{name}" is a link to nothing'):
            hub.look(name, "dataset")


def test_a_folder_for_a_file_of_a_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # commands run
    assert '"/" is a folder; give a file' in refused("check", ["pairs.jsonl", "--fix", "/"], capsys)


def test_an_objective_of_weight_0_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0*dpo", "dpo+0.0*sft"):
        assert "weight 0" in refused("tune", ["--data", "pairs.jsonl", "--objective", name], capsys)
