"""`pairtune verify DIR`."""

from collections.abc import Iterator
from pathlib import Path

from pairtune import manifest
from pairtune.errors import InputError
from pairtune.progress import counted, printable, say
from pairtune.runs import VerifyRun

# What a folder is known by in which a comparison, or a stage, has begun.
BEGUN = ("plan.yaml", "settings.json")


def run(settings: VerifyRun) -> bool:
    """Whether a run's folder still is what its manifests say, by size and SHA-256; a line for each file that is not."""
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise InputError(f'"{folder}" is not a folder')
    finished = [path.parent for path in sorted(folder.rglob(manifest.RESULT)) if _is_ours(path.parent)]
    begun = {path.parent for name in BEGUN for path in folder.rglob(name)}
    if not finished and not begun:
        raise InputError(
            f'"{folder}" holds no run of pairtune: none of {manifest.RESULT}, {" and ".join(BEGUN)} of one'
        )
    troubles, known = list[str](), set[Path]()
    for each in finished:
        found = manifest.read(each)
        known |= {each / name for name in (manifest.RESULT, *(found["files"] if found else ()))}
        said = manifest.damages(each, found["files"]) if found else [manifest.damage(each)]
        troubles += [(each / line).as_posix() for line in said]
        if not found:  # nothing is known of what lies beside it: that is one trouble
            known |= {path for path in each.iterdir() if path.is_file()}
    unfinished = begun - set(finished)
    troubles += [f"{path.as_posix()} is in no manifest" for path in _unknown(set(finished), known, unfinished)]
    for line in troubles:
        print(printable(line))
    for each in sorted(unfinished):
        say(f"{each} is unfinished: nothing is known of what lies there")
    found_wrong = counted(len(troubles), "trouble") if troubles else "all are as they were written"
    say(f"{counted(len(known), 'file')} looked at: {found_wrong}")
    return not troubles


def _is_ours(folder: Path) -> bool:
    """Whether a result.json is a manifest of ours, damaged or not: other programs write files of this name too."""
    return manifest.read(folder) is not None or bool(manifest.damage(folder))


def _unknown(finished: set[Path], known: set[Path], unfinished: set[Path]) -> Iterator[Path]:
    """Files below finished work that no manifest names, but for those of what is not finished."""
    outermost = [each for each in sorted(finished) if not finished & {*each.parents}]
    for path in (path for each in outermost for path in sorted(each.rglob("*"))):
        if path.is_file() and path not in known and path.parent not in unfinished:
            yield path
