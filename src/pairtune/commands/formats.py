"""`pairtune formats`."""

from pairtune.data import listing
from pairtune.progress import say
from pairtune.runs import FormatsRun


def run(settings: FormatsRun) -> None:
    """Print the shapes of rows that are read."""
    print(listing.as_text())
    say("next: `pairtune tune --data FILE`, which recognises them; --format NAME and --columns say it outright")
