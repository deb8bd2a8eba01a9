"""`pairtune objectives`."""

from pairtune.objectives import listing
from pairtune.progress import say
from pairtune.runs import ObjectivesRun


def run(settings: ObjectivesRun) -> None:
    """Print the catalogue."""
    print(listing.as_json() if settings.json else listing.as_text())
    if not settings.json:
        say("next: `pairtune tune --objective NAME --data FILE`, with the parameters as flags")
