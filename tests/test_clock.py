"""When a command began: with its process, by another clock than ours."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pairtune import clock

CODE = """
import time
time.sleep({before})
from pairtune import clock
import psutil
clock.this_process_is_one_command()
print(time.monotonic() - clock.began(), time.time() - psutil.Process().create_time())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process began")
def test_a_command_began_with_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(before=1.5)], capture_output=True, text=True, check=True)
    ours, theirs = map(float, done.stdout.split())
    assert ours > 1.5
    assert ours == pytest.approx(theirs, abs=1.5), "psutil knows the start of the system to a second only"


def test_a_process_that_was_something_else_before_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "LONGEST_START", 0.0)
    clock_now = time.monotonic()
    monkeypatch.setattr(clock, "_LOADED", clock_now)
    monkeypatch.setattr(clock, "_is_command", True)
    assert clock.began() == clock_now
    monkeypatch.setattr(clock, "_is_command", False)
    assert clock.began() >= clock_now, "a call from Python begins with itself"
