"""An objective from a person's own file: held to what the catalogue is, known by its content, told in a line."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune import own
from pairtune.errors import InputError
from pairtune.objectives import loss as losses
from pairtune.objectives.loss import find, known, load_own, loss_of, short

DPO = '''
def my_dpo(chosen_logratio_B, rejected_logratio_B, *, beta: float = 0.3):
    """DPO.

    beta: weight of the KL.
    """
    return -(beta * (chosen_logratio_B - rejected_logratio_B)).sigmoid().log()
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fresh folder, and nothing that a test loads left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(losses, "OWN", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(text: str, path: str = "mine.py") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def complaint(text: str, function: str = "f") -> str:
    """What is said of a file's function, in one line that begins with its name."""
    write(text)
    with pytest.raises(InputError) as caught:
        find(f"mine.py:{function}")
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith((f"mine.py:{function}: ", f"mine.py:{function} failed at line "))
    return said


def test_it_is_the_objective_that_it_says(batch: Callable[..., Any]) -> None:
    write(DPO)
    pairs = batch()
    torch.testing.assert_close(pairs.loss("mine.py:my_dpo"), pairs.loss("dpo", beta=0.3))
    torch.testing.assert_close(pairs.loss("mine.py:my_dpo", beta=0.7), pairs.loss("dpo", beta=0.7))
    mixed = pairs.loss("0.5*mine.py:my_dpo + 0.2*sft+ipo", beta=0.7)
    torch.testing.assert_close(
        mixed, 0.5 * pairs.loss("dpo", beta=0.7) + 0.2 * pairs.loss("sft") + pairs.loss("ipo", beta=0.7)
    )


def test_its_parameters_are_the_functions_own() -> None:
    write(DPO)
    objective = find("mine.py:my_dpo")
    assert "reference" in objective.needs
    assert not objective.whole_step
    (parameter,) = objective.parameters.items()
    assert parameter[0] == "beta"
    assert (parameter[1].default, parameter[1].meaning) == (0.3, "weight of the KL")
    with pytest.raises(ValueError, match=r'mine.py:my_dpo has no parameter "gamma"; its parameters are beta'):
        loss_of("mine.py:my_dpo", {"gamma": 1})


def test_its_name_is_that_of_its_file_without_folders() -> None:
    write(DPO, "deep/er/mine.py")
    name = str(Path("deep/er/mine.py").resolve()) + ":my_dpo"
    assert load_own(name).name == "mine.py:my_dpo"
    assert short(f"dpo+0.2*{name}") == "dpo+0.2*mine.py:my_dpo"
    assert find("mine.py:my_dpo") is find(name)  # though there is no such file here
    assert known()["mine.py:my_dpo"] is find(name)


def test_labels_and_whole_steps_work_as_in_the_catalogue(batch: Callable[..., Any]) -> None:
    write(
        "def labelled(logratio_B, label_B):\n    return -(logratio_B * (2.0 * label_B - 1)).sigmoid().log()\n"
        "def sorted_dpo(chosen_logratio_N, rejected_logratio_N, *, beta=0.1):\n"
        "    margin = chosen_logratio_N.sort().values - rejected_logratio_N.sort().values\n"
        "    return -(beta * margin).sigmoid().log()\n"
    )
    pairs = batch()
    found = pairs.loss("mine.py:labelled")
    ratios = (pairs.logprob_R - pairs.reference_R).detach().split(pairs.length_S.tolist())
    signed = [float(ratio.sum()) * sign for ratio, sign in zip(ratios, [1, -1] * 6, strict=True)]
    by_hand = [math.log1p(math.exp(-x)) for x in signed]
    assert found.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(by_hand[::2], by_hand[1::2], strict=True)])
    assert loss_of("mine.py:labelled").takes_labels
    assert loss_of("mine.py:sorted_dpo").whole_step
    torch.testing.assert_close(pairs.loss("mine.py:sorted_dpo"), pairs.loss("aot-unpaired"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f = 3", 'has no function "f"; it has none'),
        ("def ff(): pass\ndef g(): pass", 'no function "f"; it has ff, g'),
        ("x = 1\ndef f(:", '"mine.py" line 2 is not Python: SyntaxError'),
        ("x = 1\ny = nothing", "its file fails at line 2: NameError: name 'nothing' is not defined"),
        ("import sys\nsys.exit(3)", "its file fails at line 2: SystemExit: 3"),
        ("import no_such_thing", "its file fails at line 1: ModuleNotFoundError"),
        ("def f(chosen_logratios_B): pass", 'nothing called "chosen_logratios_B" to give it; did you mean "chosen_log'),
        ("def f(chosen_logratio_B, beta=0.1): pass", '"beta" to give it; a parameter stands after a *'),
        ("def f(chosen_logratio_B, *, beta): pass", '"beta" needs a number as its default: beta: float = 1.0'),
        ("def f(chosen_logratio_B, *, beta=True): pass", '"beta" needs a number as its default'),
        ("def f(chosen_logratio_B, *, beta='1'): pass", '"beta" needs a number as its default'),
        ("def f(*tensors): pass", "*tensors says not what it needs"),
        ("def f(chosen_logratio_B, **more): pass", "*more says not what it needs"),
        ("def f(): pass", "takes no log-probability and no log-ratio"),
        ("def f(chosen_length_B, rejected_length_B): pass", "takes no log-probability and no log-ratio"),
        ("def f(logratio_B): pass", "either chosen_ and rejected_ tensors, or those of responses by themselves"),
        ("def f(logratio_B, chosen_logratio_B, label_B): pass", "either chosen_ and rejected_ tensors"),
        ("def f(chosen_logprob_R): pass", "takes tokens (_R) and no length"),
        ("def f(chosen_logratio_B): return chosen_logratio_B.mean()", "returned a tensor of shape [] for 6 examples"),
        ("def f(chosen_logratio_B): return chosen_logratio_B[:, None]", "returned a tensor of shape [6, 1] for 6"),
        ("def f(chosen_logratio_B): return 3.0", "returned a float for 6 examples; it must return a loss for each"),
        ("def f(chosen_logratio_B): pass", "returned a NoneType for 6 examples"),
        ("def f(chosen_logratio_B): return chosen_logratio_B.detach()", "does not depend on the policy"),
        (
            "def f(chosen_logprob_B): return chosen_logprob_B.log()",
            "it returned [nan, nan, nan, nan, nan, nan]; a loss",
        ),
        ("def f(chosen_logprob_B): return chosen_logprob_B.long()", "a loss is a finite number"),
        ("def f(chosen_logprob_B): return 0 * chosen_logprob_B", "its gradient is 0 or not finite"),
        (
            "def f(chosen_logprob_B): return chosen_logprob_B - chosen_logprob_B.mean() / 2",
            "changes with the other pairs",
        ),
        ("def f(chosen_logprob_B):\n  x = 1\n  return chosen_logprob_B + y", "failed at line 3: NameError: name 'y'"),
        ("def f(chosen_logprob_B):\n  raise ValueError('two\\nlines')", "failed at line 2: ValueError: two lines"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(text: str, said: str) -> None:
    assert said in complaint(text)


def test_a_near_name_is_said() -> None:
    assert 'no function "my_dop"; did you mean "my_dpo"?' in complaint(DPO, "my_dop")
    with pytest.raises(InputError, match=r'"mien.py" does not exist; did you mean "mine.py"\?'):
        find("mien.py:my_dpo")
    with pytest.raises(InputError, match=r"there is no module mien here that is a Python file"):
        find("mien:my_dpo")
    with pytest.raises(ValueError, match=r'there is no objective "mine\.py"'):
        find("mine.py")


def test_what_goes_wrong_in_training_is_one_line_too(batch: Callable[..., Any]) -> None:
    write("def f(chosen_logprob_B):\n    assert len(chosen_logprob_B) != 5\n    return -chosen_logprob_B\n")
    with pytest.raises(InputError, match=r"mine.py:f failed at line 2: AssertionError"):
        batch(5).loss("mine.py:f")


# ---- known by its content ------------------------------------------------------------------------------------------


def test_a_changed_file_is_another_function(batch: Callable[..., Any]) -> None:
    write(DPO)
    first, pairs = load_own("mine.py:my_dpo"), batch()
    assert load_own("mine.py:my_dpo") is first
    write(DPO.replace("0.3", "0.4"))  # of one length, within a second
    second = load_own("mine.py:my_dpo")
    assert first.sha256 != second.sha256 == own.sha256("mine.py:my_dpo")
    torch.testing.assert_close(pairs.loss("mine.py:my_dpo"), pairs.loss("dpo", beta=0.4))
    assert loss_of("mine.py:my_dpo+sft").to_json() == {
        "mine.py:my_dpo": {"weight": 1.0, "beta": 0.4, "sha256": second.sha256},
        "sft": {"weight": 1.0},
    }
    assert list(Path().rglob("*.pyc")) == []


@pytest.mark.parametrize(
    "how", ["import help_mine", "from help_mine import scale", "def late():\n  from help_mine import scale"]
)
def test_so_is_one_whose_helper_has_changed(how: str) -> None:
    write("def scale(): return 1.0\n", "help_mine.py")
    write("def nobody(): return 1.0\n", "other.py")
    write(f"{how}\n{DPO}")
    first = load_own("mine.py:my_dpo").sha256
    write("def nobody(): return 2.0\n", "other.py")
    assert load_own("mine.py:my_dpo").sha256 == first
    write("def scale(): return 2.0\n", "help_mine.py")
    assert load_own("mine.py:my_dpo").sha256 != first


def test_the_helper_that_runs_is_the_one_that_is_hashed() -> None:
    text = "from help_mine import SCALE\ndef f(chosen_logprob_B, *, scale=SCALE): return -scale * chosen_logprob_B\n"
    write("SCALE = 1.0\n", "help_mine.py")
    write(text)
    assert load_own("mine.py:f").parameters["scale"].default == 1.0
    write("SCALE = 2.0\n", "help_mine.py")
    assert load_own("mine.py:f").parameters["scale"].default == 2.0


def test_a_function_of_a_module_may_import_its_package() -> None:
    write("", "pack_of_mine/__init__.py")
    write("SCALE = 3.0\n", "pack_of_mine/deep/scales.py")
    write("", "pack_of_mine/deep/__init__.py")
    inner = "from .scales import SCALE\ndef f(chosen_logprob_B, *, scale=SCALE): return -scale * chosen_logprob_B\n"
    write(inner, "pack_of_mine/deep/losses.py")
    first = load_own("pack_of_mine.deep.losses:f")
    assert first.parameters["scale"].default == 3.0
    assert first.name == "pack_of_mine.deep.losses:f"
    write("SCALE = 4.0\n", "pack_of_mine/deep/scales.py")
    second = load_own("pack_of_mine.deep.losses:f")
    assert second.parameters["scale"].default == 4.0
    assert second.sha256 != first.sha256


def test_hashes_are_of_every_own_function_that_settings_name() -> None:
    write(DPO)
    digest = own.sha256("mine.py:my_dpo")
    found = own.hashes(
        {"methods": ["dpo", "0.1*mine.py:my_dpo+sft"], "model": "a/b", "seed": 0, "x": {"y": "mine.py:f"}}
    )
    assert found == {"mine.py:my_dpo": digest, "mine.py:f": digest}
