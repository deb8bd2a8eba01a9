"""`pairtune cache`."""

from pairtune.cache import cache_folder, entries, megabytes, remove
from pairtune.progress import counted, printable
from pairtune.runs import CacheRun


def run(settings: CacheRun) -> None:
    """List what is kept between runs, or remove it."""
    found = entries()
    gone = "removed " if settings.clear else ""
    for entry in found:
        if settings.clear:
            remove(entry)
        print(printable(f"{gone}{entry}"))
    total = f"{counted(len(found), 'entry', 'entries')}, {megabytes(sum(entry.size for entry in found))}"
    hint = "" if settings.clear or not found else "; `pairtune cache --clear` removes them"
    print(printable(f"{gone}{total} in {cache_folder()}{hint}"))
