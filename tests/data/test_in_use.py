"""Every data set and tool in the table of those in use is read exactly, or refused in one line that says what to do."""

from typing import Any

import pytest

from pairtune.data.sources import has_labels, read_labelled, read_pairs
from pairtune.errors import InputError
from tests.data.in_use import IN_USE, write

pytestmark = pytest.mark.usefixtures("inside")


@pytest.mark.parametrize("name", IN_USE)
def test_what_people_have_is_read_exactly_or_refused(name: str) -> None:
    case = IN_USE[name]
    source = write(case)
    if case.refused:
        with pytest.raises(InputError) as error:
            read_pairs(source, asked=case.asked)
        assert case.refused in str(error.value)
        assert "\n" not in str(error.value)
        return
    read: Any = (read_labelled if case.labels else read_pairs)(source, asked=case.asked)
    found = [(row.prompt, row.response, row.label) if case.labels else (row.prompt, row.chosen, row.rejected)
             for row in read.rows]  # fmt: skip
    assert found == [*case.labels, *case.pairs]
    assert {row.weight for row in read.rows} == {1.0}
    assert [skip.reason for skip in read.skipped] == list(case.left_out)
    assert set(read.unread) == set(case.unread)
    assert has_labels(source, asked=case.asked) is bool(case.labels)


def test_most_are_read_by_themselves() -> None:
    by_itself = [case for case in IN_USE.values() if not case.refused and not case.asked.columns]
    assert len(by_itself) >= 70
