"""Rows of a source, read: its container opened, its shape recognised, each row made what the run needs.

What rows come in is told in :mod:`pairtune.data.containers`, the shapes they have in :mod:`pairtune.data.shapes`, what
the columns of ours mean in :mod:`pairtune.data.formats`.

A row that has a known shape but nothing to learn from (an empty response, two sides with different prompts) is left out
and returned as ``skipped``. In a file with a ``prompt`` of its own, which its owner can mend, it is an error where such
rows are more than MOST_LEFT_OUT of all; whole dialogues and hub datasets are mostly other people's. A tie is none.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pairtune import own
from pairtune.data.asked import BY_PROMPT, NOTHING, Asked
from pairtune.data.cells import read_cells
from pairtune.data.containers import Record, of_file, of_hub
from pairtune.data.files import local_files, name_of
from pairtune.data.formats import to_demonstration, to_labelled, to_pair, to_prompt, unread
from pairtune.data.gathering import gathered_rows, renamed
from pairtune.data.labels import label_of
from pairtune.data.numbers_beside import MARGIN, WEIGHT, check_same, numbers_in, ratings_of
from pairtune.data.refused import refusal, refuse_misread
from pairtune.data.scales import scales_of
from pairtune.data.schema import Demonstration, Labelled, Pair, Prompt, Rated, Rows, Skipped
from pairtune.data.shapes import (
    BY_NAME,
    DEMONSTRATIONS,
    LABELLED,
    PAIRS,
    PROMPTS_ONLY,
    Shape,
    recognised,
    row_answer,
    row_score,
)
from pairtune.data.sides import JUDGED, PROMPTS, Made
from pairtune.data.store import store_texts
from pairtune.data.turns import Columns, MalformedError, UnusableError
from pairtune.data.verdicts import verdicts_in
from pairtune.data.wording import escaped, listed, quoted
from pairtune.errors import InputError
from pairtune.hints import suggestion
from pairtune.progress import counted, task

# Share of a file's rows that may be left out as mistakes.
MOST_LEFT_OUT = 0.05
# What a kind of rows is made from, the best first.
_FROM: dict[type, tuple[str, ...]] = {
    Pair: (PAIRS,),
    Labelled: (LABELLED,),
    Demonstration: (DEMONSTRATIONS, PAIRS, LABELLED),
    Prompt: (PROMPTS_ONLY, DEMONSTRATIONS, PAIRS, LABELLED),
}
_PARSERS: dict[type, Callable[[Columns, int], Any]] = {
    Pair: to_pair,
    Labelled: to_labelled,
    Demonstration: to_demonstration,
    Prompt: to_prompt,
}
# The numbers beside a row that a kind of rows has.
_NUMBERS: dict[type, tuple[str, ...]] = {
    Pair: (WEIGHT, MARGIN),
    Labelled: (WEIGHT,),
    Demonstration: (WEIGHT,),
    Prompt: (),
}
_NEEDED = {Pair: "pairs", Labelled: "responses with labels", Demonstration: "demonstrations", Prompt: "prompts"}


def asked_of(settings: Any) -> Asked:
    """How a command's rows are to be read, by its settings. Raises InputError for columns that are not name=name."""
    columns: dict[str, str] = {}
    for word in settings.columns:
        name, equals, source = word.partition("=")
        if not (name and equals and source):
            raise InputError(f'columns: "{word}" is not OURS=THEIRS; write prompt=question, say')
        columns[name] = source
    others = (entry.name for entry in fields(Asked) if entry.name not in ("columns", "scales"))
    given = {name: getattr(settings, name) for name in others}
    return Asked(columns=columns, **given)


def read_pairs(source: str, *, asked: Asked = NOTHING) -> Rows[Pair]:
    """The pairs of a file, a folder or pattern of files, a hub dataset, or a function of one's own.

    Raises InputError, one sentence that names the file, the line and the field, when the source cannot be
    read, a row has none of the shapes, or no row is left.
    """
    return _Reading(source, Pair, asked).read()


def has_labels(source: str, *, asked: Asked = NOTHING) -> bool:
    """Whether the source holds single responses with labels and no pairs, by its first row.

    Raises InputError if the source cannot be read.
    """
    first = next(_records(source, asked, local_files(source))[1], None)
    if first is None:
        return False
    if asked.format in BY_NAME:
        return BY_NAME[asked.format].gives == LABELLED
    try:
        columns = read_cells(renamed(first.columns, asked))
    except MalformedError:
        return False  # told where it is read
    return recognised(columns, PAIRS) is None and recognised(columns, LABELLED) is not None


def read_labelled(source: str, *, asked: Asked = NOTHING) -> Rows[Labelled]:
    """The labelled responses of a source: a response and a label, true where it is desirable. Errors as for pairs."""
    return _Reading(source, Labelled, asked).read()


def read_demonstrations(source: str, *, asked: Asked = NOTHING) -> Rows[Demonstration]:
    """The demonstrations of a source; of pairs the chosen side serves. Errors as for pairs."""
    return _Reading(source, Demonstration, asked).read()


def read_prompts(source: str, *, asked: Asked = NOTHING) -> Rows[Prompt]:
    """The prompts of a source, which may be all it holds, or those of its rows of another kind. Errors as for pairs."""
    return _Reading(source, Prompt, asked).read()


@dataclass
class _Reading:
    """One pass over a source."""

    source: str
    kind: type[Any]
    asked: Asked
    skipped: list[Skipped] = field(default_factory=list)
    mistakes: list[tuple[str, UnusableError]] = field(default_factory=list)  #: with their places, in a file's order
    ignored: dict[str, None] = field(default_factory=dict)
    told: str = ""
    judged: str = ""  # by what the better answer is known
    rated: dict[tuple[str, str], list[Any]] = field(default_factory=dict)  #: by columns: rows with both, and the lower
    beside: Mapping[str, object] | None = None  # the numbers that stood beside the first row
    count: int = 0  # of rows in the source
    unit: str = "row"

    def read(self) -> Rows[Any]:
        """Everything that the source holds."""
        files = local_files(self.source)
        size = sum(file.stat().st_size for file in files or ())
        with task("reading, kB", size // 1000) as progress:
            given = _records(self.source, self.asked, files, lambda size: progress.advance(size // 1000))
            rows = store_texts(self.kind, self._made(*given))
        name = given[0]
        rows.origin = f"{name} {self.unit}"
        if len(self.mistakes) > MOST_LEFT_OUT * self.count:
            self._refuse_mistakes()
        if self.skipped and not rows:
            first = f"row {self.skipped[0].row}: {self.skipped[0].reason}"
            none = "its one row cannot" if len(self.skipped) == 1 else f"none of the {len(self.skipped):,} rows can"
            raise InputError(f"{name}: {none} be used ({first}); give another source")
        if not rows:
            raise InputError(f"{name}: there are no rows in it; give a source that has some")
        more = f": {len(rows):,} {_NEEDED[self.kind]}" if len(rows) + len(self.skipped) != self.count else ""
        told = f"{self.told.format(counted(self.count, 'row'))}{more}" if self.told else ""
        return Rows(rows, tuple(self.skipped), tuple(self.ignored), told, self._rated())

    def _made(self, name: str, records: Iterator[Record], is_a_hubs: bool) -> Iterator[Any]:
        first = next(records, None)
        if first is None:
            return
        shape = self._shape(name, first)
        if shape and shape.name == "verdict":
            self.asked = replace(self.asked, scales=scales_of(self._verdicts()))
        everything = chain([first], records)
        gathers = shape is not None and shape.gathers
        for record, rows in gathered_rows(everything, self.asked) if gathers else ((each, 1) for each in everything):
            self.count += rows
            self.unit = record.unit if record.file == name else "row"
            place = f"{record.file} {record.unit} {record.number}"
            number = record.number if record.file == name else self.count
            try:
                yield from self._rows(shape, record, number)
            except MalformedError as error:
                raise InputError(f"{place}: {error}") from None
            except UnusableError as error:
                owners = not is_a_hubs and any(each in record.columns for each in (*PROMPTS, *self.asked.columns))
                if error.mistake and (owners or self.asked.strict):
                    self.mistakes.append((place, error))
                    if self.asked.strict:
                        self._refuse_mistakes()
                self.skipped.append(Skipped(number, error.reason, record.file, record.number))

    def _rows(self, shape: Shape | None, record: Record, number: int) -> Iterator[Any]:
        columns = record.columns
        if not (shape and shape.gathers):
            columns = read_cells(renamed(columns, self.asked))
        if shape and shape.made and not shape.gathers and not shape.fits(columns):
            raise UnusableError(f"it is not {shape.title}, as the first row is", "a source has one shape")
        refuse_misread(columns)
        made = list(shape.rows(columns, self.asked)) if shape else [Made(columns, {})]
        if self.kind in (Demonstration, Prompt):
            made = made[:1]
        beside = numbers_in(columns, *_NUMBERS[self.kind])
        check_same(beside if self.beside is None else self.beside, beside)
        self.beside = beside if self.beside is None else self.beside
        if not self.told and shape:
            self.told = _told(shape, made[0])
        self._check_judged(made)
        if self.kind is Pair:
            self._note_rated(columns, number)
        parse = _PARSERS[self.kind]
        parts = len(made) if self.asked.weight == BY_PROMPT else 1
        for each in made:
            row = parse({**each.columns, **beside}, number)
            if each is made[0]:
                self._note_unread(columns, each, row)
            yield row if parts == 1 else replace(row, weight=row.weight / parts)

    def _check_judged(self, made: list[Made]) -> None:
        """Raises UnusableError for a row that is judged by another column than the first one that is."""
        if made and (by := made[0].stands_for.get("chosen", "")).startswith(JUDGED):
            by = by.rpartition(" by ")[2]
            self.judged = self.judged or by
            if by != self.judged:
                raise UnusableError(f"it is judged by {by}, and rows before it by {self.judged}", "a source has one")

    def _note_rated(self, columns: Columns, number: int) -> None:
        """What scores of the sides say of a row; of sides that a person named, nobody knows whose they are."""
        if not self.asked.columns.keys() & {"chosen", "rejected"} and (rated := ratings_of(columns)):
            names, good, poor = rated
            count_and_lower = self.rated.setdefault(names, [0, array("q")])
            count_and_lower[0] += 1
            if good < poor:
                count_and_lower[1].append(number)

    def _rated(self) -> Rated:
        """Of the columns with scores those that most rows have."""
        most = max(self.rated.items(), key=lambda item: item[1][0], default=None)
        return Rated(most[0], *most[1]) if most else Rated()

    def _note_unread(self, columns: Columns, made: Made, row: Any) -> None:
        words = " ".join(made.stands_for.values()).replace("+", " ").split()
        used = {*words, *(word.partition(".")[0] for word in words)}  # input.messages is of the column input
        left = {name: value for name, value in columns.items() if name not in used}
        found = unread(left if made.stands_for else columns, row.prompt)
        names = [*(each for each in found if each not in (self.beside or ())), *made.unread]
        if self.kind is Demonstration:
            told = (label_of(columns), row_score(columns) if row_answer(columns) else None)
            names += [name for name in told if name and columns[name] is not None]
        self.ignored.update(dict.fromkeys(names))

    def _verdicts(self) -> Iterator[Columns]:
        """What every row has for a verdict: whether 1 is the first or the second answer, no row tells by itself."""
        for record in _records(self.source, self.asked, local_files(self.source))[1]:
            with suppress(MalformedError):  # told where it is read
                yield verdicts_in(renamed(record.columns, self.asked))

    def _shape(self, name: str, first: Record) -> Shape | None:
        """The shape of the first row; None where none is known, which `formats` then tells of."""
        try:
            columns = read_cells(renamed(first.columns, self.asked))
        except MalformedError as error:
            raise InputError(f"{first.file} {first.unit} {first.number}: {error}") from None
        if self.asked.format != "auto":
            return self._forced(name, columns)
        found = recognised(columns, *_FROM[self.kind])
        if not found and (line := refusal(columns)):
            raise InputError(f"{name}: {line}")
        other = found or recognised(columns, PAIRS, LABELLED, DEMONSTRATIONS)
        if other and not found and other.made:
            raise InputError(
                f"{name}: looks like {other.title}, which gives {other.gives}, and {_NEEDED[self.kind]} are needed"
            )
        return found

    def _forced(self, name: str, columns: Columns) -> Shape:
        wanted = self.asked.format
        if wanted not in BY_NAME:
            hint = suggestion(wanted, BY_NAME) or "; `pairtune formats` lists them"
            raise InputError(f'format: there is no shape "{wanted}"{hint}')
        shape = BY_NAME[wanted]
        if shape.gives not in _FROM[self.kind]:
            raise InputError(f"format: {wanted} gives {shape.gives}, and {_NEEDED[self.kind]} are needed")
        if not shape.fits(columns):
            raise InputError(f"{name}: its first row is not {shape.title}; its columns are {listed(map(str, columns))}")
        return shape

    def _refuse_mistakes(self) -> None:
        """Raises InputError that names the first row that cannot be used."""
        place, error = self.mistakes[0]
        need = f"; {error.need}" if error.need else ""
        others = len(self.mistakes) - 1
        share = f" (and {counted(others, 'other row')})" if others and not self.asked.strict else ""
        raise InputError(f"{place}: {error.reason}{need} - remove the row or fill it in{share}")


def _told(shape: Shape, made: Made) -> str:
    """The shape, {} for the number of rows, and what stands for what."""
    words = [f"{source} is {name if name != 'prompt' else 'the prompt'}" for name, source in made.stands_for.items()
             if source != name]  # fmt: skip
    title = shape.title.replace("{", "{{").replace("}", "}}")
    return f"{title}, {{}}{': ' if words else ''}{', '.join(escaped(word) for word in words)}"


def _records(
    source: str, asked: Asked, files: list[Path] | None, read: Callable[[int], None] = lambda size: None
) -> tuple[str, Iterator[Record], bool]:
    """What a source is called, its rows as they came, and whether they are a hub's; `read` is told of bytes read."""
    if files is None and not own.is_own(source):
        name = f"dataset {quoted(source, 80)}"
        return name, of_hub(source, name, asked), True
    name = escaped(source if files is None or len(files) != 1 else name_of(files[0]))
    for what in ("config", "split", "revision"):
        value = getattr(asked, f"data_{what}")
        if value != getattr(NOTHING, f"data_{what}"):
            raise InputError(f"{name}: only a hub dataset has a {what} ({quoted(value)}); leave out --data-{what}")
    records = _own(source) if files is None else chain.from_iterable(of_file(file, read) for file in files)
    return name, records, False


def _own(source: str) -> Iterator[Record]:
    """The rows that a person's own function gives, with the columns that a file's rows have."""
    return (Record("row", number, row, escaped(source)) for number, row in enumerate(own.rows(source), 1))
