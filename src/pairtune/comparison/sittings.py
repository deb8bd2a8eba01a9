"""How long a run took by the clock: all its sittings, each from the start of the command to the report.

Imports, model conversion, loading between stages and measuring are in it, as no sum over stages has them. A sitting
that is cut off counts as far as it was last noted.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairtune import disk

# How often a sitting's length is noted while it goes on, in seconds: so much of it is lost to a crash at most.
NOTED_EVERY = 10.0


class Sittings:
    """The sitting under way and those before it, noted in a file: [{"seconds", "stages", "used", "whole"}, ...].

    A sitting's `stages` are the seconds that each stage, by its key, was worked on; `used` are the keys of all stages
    that its result rests on, and `whole` what it took in all: both only once it is finished. Sittings after the last
    finished one belong together, being one run in parts; what they find done by earlier ones counts at what it took
    there.
    """

    def __init__(self, path: Path | None = None, *, began: float | None = None) -> None:
        self.path, self.began = path, time.monotonic() if began is None else began
        self.earlier = _read(path) if path else []
        self.stages: dict[str, float] = {}
        self.used: set[str] = set()
        self.whole: dict[str, Any] | None = None
        self._at: tuple[str, float] | None = None  # the stage under way, and when it began
        self._writing = threading.Lock()

    @contextmanager
    def under_way(self) -> Iterator["Sittings"]:
        """Note the sitting's length every few seconds, and at its end, however it ends."""
        stop = threading.Event()

        def note() -> None:
            while not stop.wait(NOTED_EVERY):
                self.note()

        noting = threading.Thread(target=note, daemon=True)
        noting.start()
        try:
            yield self
        finally:
            stop.set()
            noting.join()
            self.note()

    @contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """A stage is begun, or resumed, inside the block."""
        self.used.add(key)
        self.stages.setdefault(key, 0.0)
        self._at = key, time.monotonic()
        try:
            yield
        finally:
            self.stages = self._so_far()
            self._at = None

    def keep(self, key: str) -> None:
        """A stage's result is used as an earlier sitting left it."""
        self.used.add(key)

    def finish(self) -> dict[str, Any]:
        """What the run took so far, now that it has a result: {"seconds", "sittings", "kept_seconds"}.

        A sitting that found everything done is none: the run took what it took.
        """
        last = self.earlier[-1] if self.earlier else {}
        if not self.stages and last.get("whole") and set(last["used"]) == self.used:
            return dict(last["whole"])
        before, parts = self._split()
        kept = round(sum(sitting["stages"].get(key, 0.0) for sitting in before for key in self.used), 1)
        sittings = [round(seconds, 1) for seconds in (*(sitting["seconds"] for sitting in parts), self._seconds())]
        self.whole = {"seconds": round(kept + sum(sittings), 1), "sittings": sittings, "kept_seconds": kept}
        return self.whole

    def note(self) -> None:
        """Write the sitting's length down, unless there is nothing to count: no stage was worked on."""
        if self.path is None or not (self.stages or self.whole):
            return
        finished = {"used": sorted(self.used), "whole": self.whole} if self.whole else {}
        stages = self._so_far()  # before the sitting's own seconds: no stage took longer than the sitting so far
        sitting = {"seconds": self._seconds(), "stages": stages, **finished}
        with self._writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            disk.write(self.path, json.dumps([*self.earlier, sitting], indent=2) + "\n")

    def _so_far(self) -> dict[str, float]:
        """Seconds of each stage, those of the one under way among them."""
        if self._at is None:
            return dict(self.stages)
        key, began = self._at
        return self.stages | {key: self.stages[key] + time.monotonic() - began}

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _split(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Earlier runs' sittings, and the unfinished ones that this one goes on with."""
        finished = [i for i, sitting in enumerate(self.earlier) if sitting.get("whole")]
        first = finished[-1] + 1 if finished else 0
        return self.earlier[:first], self.earlier[first:]


def _read(path: Path) -> list[dict[str, Any]]:
    """What was noted; nothing where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            sitting | {"seconds": float(sitting["seconds"]), "stages": dict(sitting["stages"])} for sitting in found
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
