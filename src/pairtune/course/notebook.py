"""A notebook of the course: cells of a script in the percent format (jupytext's), or of an .ipynb file."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from pairtune.errors import InputError

# What a notebook tells IPython, and Python does not know: %matplotlib inline, !pip install.
MAGIC = re.compile(r"^[ \t]*[%!].*$", re.MULTILINE)
# Between the cells of a script, with what stands behind it.
MARK = re.compile(r"^# %%(.*)\n", re.MULTILINE)


class Cell(NamedTuple):
    """The code of one cell, the line of the file that it begins at (0: not known), and its tags."""

    code: str
    line: int
    tags: tuple[str, ...]


def read(path: Path) -> list[Cell]:
    """The cells that are code. Raises InputError if the file is no notebook."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'"{path}" cannot be read: {error}') from error
    if path.suffix == ".ipynb":
        return _of_json(path, text)
    if path.suffix != ".py" or not MARK.search(text):
        raise InputError(f'"{path}" is no notebook: an .ipynb file, or a script whose cells begin with # %%')
    pieces = MARK.split(text)[1:]
    cells, line = [], text.count("\n", 0, text.index("# %%")) + 2
    for head, code in zip(pieces[::2], pieces[1::2], strict=True):
        if "[markdown]" not in head:
            cells.append(Cell(code, line, tuple(re.findall(r'"(\w+)"', head))))
        line += code.count("\n") + 1
    return cells


def _of_json(path: Path, text: str) -> list[Cell]:
    try:
        cells = json.loads(text)["cells"]
        return [
            Cell(MAGIC.sub("", "".join(cell["source"])), 0, tuple(cell.get("metadata", {}).get("tags", ())))
            for cell in cells
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'"{path}" is no notebook that can be read: {error}') from error
