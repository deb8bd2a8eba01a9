"""What is wrong with labelled responses, told before a step is spent."""

from collections.abc import Iterable

from pairtune.data.check import SHOWN_ROWS, Finding, hashed
from pairtune.data.schema import Labelled
from pairtune.progress import counted


def check_labelled(rows: Iterable[Labelled]) -> list[Finding]:
    """The share of desirable ones, responses that stand there twice, and those that have both labels; none for no rows.

    What has to be compared is kept as hashes: 8 bytes for each distinct response.
    """
    desirable, total, twice, both = 0, 0, list[int](), list[int]()
    seen: dict[int, bool] = {}
    for row in rows:
        total += 1
        desirable += row.label
        before = seen.setdefault(hashed((row.prompt, row.beside, row.response)), row.label)
        if before is not row.label:
            both.append(row.row)
        elif len(seen) + len(twice) + len(both) < total:
            twice.append(row.row)
    if not total:
        return []
    share = f"{desirable / total:.1%} of the {counted(total, 'response')} are desirable"
    found = [Finding("balance", total, (), f"{share}; every step has its share of either")]
    for name, rows_of, said in (
        ("duplicate_labelled", twice, "repeats an earlier response to the same prompt, label and all"),
        ("contradictory_labels", both, "has the other label where it stood before"),
    ):
        if rows_of:
            shown = ", ".join(map(str, rows_of[:SHOWN_ROWS])) + (", ..." if len(rows_of) > SHOWN_ROWS else "")
            plural = said.replace("repeats", "repeat", 1).replace("has", "have", 1).replace("it stood", "they stood")
            words = plural if len(rows_of) > 1 else said
            message = f"{counted(len(rows_of), 'response')} (row{'s' * (len(rows_of) > 1)} {shown}) {words}"
            found.append(Finding(name, len(rows_of), tuple(rows_of[:SHOWN_ROWS]), message))
    return found
