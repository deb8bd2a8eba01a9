"""A chat template or tokenizer that goes wrong in any way ends in one line, within limits of time and size."""

import resource
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from pairtune.data import template_limits
from pairtune.data.dialogue import RefusedError, render
from pairtune.data.schema import Message, Prompt
from pairtune.data.tokenize import encode_prompts
from pairtune.errors import InputError

TURNS = (Message("user", "Who wrote Emma?"),)


@pytest.fixture
def written(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.setattr(template_limits, "SECONDS", 0.3)
    tokenizer = tiny_tokenizer(chat=True)

    def write(template: str) -> str:
        tokenizer.chat_template = template
        return render(tokenizer, TURNS, to_be_answered=True)

    return write


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "come to an end"),
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "too much memory|come to an end",
        ),
        ("{{ 'a' * 1000000000000 }}", "too much memory"),
        ("{{ '%1000000000d' % 3 }}", "too much memory"),
        ("{% for m in range(9999) %}{{ 'x' * 1000 }}{% endfor %}", "writes 9,999,000 characters"),
        ("{{ 10 ** (10 ** 9) }}", "to a power"),
    ],
)
def test_a_template_has_so_long_and_so_much_room(written: Callable[[str], str], template: str, word: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(InputError, match=word):
        written(template)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{% include '/etc/passwd' %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ '\\ud800' }}",
    ],
)
def test_a_template_that_goes_wrong_refuses_the_row(written: Callable[[str], str], template: str) -> None:
    with pytest.raises(RefusedError):
        written(template)


def test_what_templates_do_is_let_be(written: Callable[[str], str]) -> None:
    assert written("{% set n = namespace(**{'a': 1}) %}**{{ messages[0].content }}**") == "**Who wrote Emma?**"
    assert written("{{ 'x' * 500000 }}") == "x" * 500_000


def test_in_a_thread_there_is_no_alarm_and_the_rest_holds(written: Callable[[str], str]) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            found.append(written("{{ 'a' * 1000000000000 }}"))
        except InputError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "too much memory" in str(found[0])


def test_a_tokenizer_that_panics_is_told_with_the_row(tiny_tokenizer: Any) -> None:
    tokenizer = tiny_tokenizer()
    assert encode_prompts([Prompt("a" * 60 + "!", 2)], tokenizer, max_tokens=99)[0]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a|aa)+$"), "isolated")
    with pytest.raises(InputError, match=r"row 2: the tokenizer breaks off on this row: .*retry-limit"):
        encode_prompts([Prompt("warm", 1), Prompt("a" * 60 + "!", 2)], tokenizer, max_tokens=99)
