"""Single responses with labels, by the names that people give to either."""

from collections.abc import Iterable

from pairtune.data.asked import Asked
from pairtune.data.sides import DIALOGUES, Made, beside, prompt_of
from pairtune.data.turns import Columns

#: What people call a response that a label is about, and the label; ours first.
RESPONSES = ("response", "completion", "output", "answer", "generation", *DIALOGUES)
LABELS = ("label", "kto_tag", "thumbs", "thumb", "desirable", "is_desirable", "is_good", "feedback")


def label_of(columns: Columns) -> str | None:
    """The column with a row's label."""
    return next((name for name in LABELS if name in columns), None)


def labelled(columns: Columns, asked: Asked) -> Iterable[Made]:
    """The response and its label, which a threshold makes true or false."""
    name = label_of(columns)
    response = next(each for each in RESPONSES if each in columns)
    assert name
    label, source = columns[name], name
    number = _number(label) if asked.label_threshold else None
    if number is not None:
        label, source = number >= asked.label_threshold, f"{name} from {asked.label_threshold:g} on"
    stands = {"response": response, "label": source}
    if response in DIALOGUES:
        extra, words = beside(columns)
        return [Made({**extra, "response": columns[response], "label": label}, {**stands, **words})]
    made = prompt_of(columns)
    return [Made({**made.columns, "response": columns[response], "label": label}, {**made.stands_for, **stands})]


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except ValueError:
        return None
