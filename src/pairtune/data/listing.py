"""The table of shapes as text and as a page: what `pairtune formats` prints, and docs/data.md."""

from pairtune.data.advice import ADVICE, FACTS
from pairtune.data.examples import SEEN
from pairtune.data.shapes import TABLE

_PAGE = """\
# Data

Written by `docs/make_data.py` from the table in `src/pairtune/data/shapes.py`.

`--data` takes a file, a folder of shards or a pattern (`"shards/*.jsonl.zst"`), what `save_to_disk` of datasets left,
a dataset of the hub (which of it: `--data-config`, `--data-split`, `--data-revision`), `-` for standard input, or
`FILE.py:FUNCTION` that gives rows. Files are JSON lines (`.jsonl`, `.ndjson`), JSON (an array, an object of columns, or
one with a list of rows under `data`), CSV and TSV, Parquet and Arrow; each may be zipped by gzip, zstd, bzip2 or xz,
which is told by its content. Of a folder with files for training and files for measuring, the former are read.

The shape of the rows is recognised by columns and values of the first one, and said:

    data: LLaMA-Factory ranking, 300 rows: instruction+input is the prompt

A verdict is never guessed at: where numbers could name either answer, where two columns name different ones, or a scale
has no middle, one line says so. `--columns` takes another verdict or score: `better_response_id=safer_response_id`.

`--format NAME` says it outright, `--columns prompt=question chosen=best` gives columns our names. Columns that look
like content and are not read are named; pictures and sound are refused. Messages may stand as JSON text in a cell.

A prompt that is plain text is what a chat model's user says, unless the file is written to be gone on from:
`--prompt-format`.

Of several answers to a prompt `--pair-up` makes pairs: `best-worst` (the default), `all`, `adjacent` in the order of
their scores, or `best-rest`. Ties are left out and counted, and so is what lies no further apart than `--min-margin`.
A label that is a number needs `--label-threshold`. Pairs made of one row count as one together, so that a prompt with
many answers counts no more than another (`--weight pair`: as one each).

A column `weight` says how often a row counts in training: 2 is the row standing there twice, 0 leaves it out, and only
what they are to each other matters. Every objective counts them, but one of your own that compares the pairs of a step
with each other and takes no `weight_N`; held-out figures count each row once, and say so. A column `margin` is taken
from a pair's difference of rewards where a reward model learns, and an objective of your own takes it by the name
`row_margin_B`.

`pairtune check FILE` looks at data without training, and with `--model` as that model reads them, token by token;
`--against FILE` for prompts that must not be among them (a benchmark's); `--fix FILE` writes the rows that are worth
training on, and what went and why beside it; `--html FILE` is a page of it all, `--json` for programs. Exit code 0:
nothing is wrong; 1: there are findings; 2: they cannot be read. What it finds, what that does to training, what to do:

{advice}
And what it tells of any data:

{facts}

A row with an empty response, say, is left out, counted, and written with its place and reason to `left-out.jsonl` in
the result's folder. Where a file's own prompts stand beside its responses, more than one row in twenty is an error;
with `--strict` any is.
"""


def as_text() -> str:
    """Every shape by name, with what it gives, what it is, and two rows."""
    return "\n\n".join(
        f"{shape.name} ({shape.gives}): {shape.title}\n" + "\n".join(f"  {line}" for line in shape.example)
        for shape in TABLE
    )


def as_page() -> str:
    """The same as Markdown, below what is to be known of all."""
    advice = "".join(f"- `{name}`: {what.effect}; {what.todo}.\n" for name, what in ADVICE.items())
    facts = "".join(f"- `{name}`: {what}.\n" for name, what in FACTS.items())
    parts = [_PAGE.replace("{advice}", advice).replace("{facts}", facts)]
    for gives in dict.fromkeys(shape.gives for shape in TABLE):
        parts.append(f"\n## {gives[0].upper()}{gives[1:]}\n")
        for shape in TABLE:
            if shape.gives == gives:
                rows = "\n".join(shape.example)
                seen = f"; as {SEEN[shape.name]} have it" if shape.name in SEEN else ""
                parts.append(f"\n`{shape.name}`: {shape.title}{seen}\n\n```json\n{rows}\n```\n")
    return "".join(parts)
