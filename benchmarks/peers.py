"""The peers, in pinned versions: each in an environment of its own, built once and kept in the cache folder."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.processes import Worker, say
from benchmarks.results import BenchmarkError

WORKER = "benchmarks.workers.trl"
COMPLETE = "complete"  # written last, with what was asked for: a build cut short is begun again


@dataclass(frozen=True)
class Peer:
    """What is installed for a peer, by pip's words."""

    name: str
    requirements: tuple[str, ...]

    def python(self) -> Path:
        """The environment's interpreter, or this one if it has the peer; builds it first if there is none.

        Raises BenchmarkError if that fails.
        """
        if _present(self.requirements[0]):
            return Path(sys.executable)
        folder = _folder() / self.name
        wanted = "\n".join((sys.version.split()[0], *self.requirements))
        found = folder / "bin" / "python"
        if (folder / COMPLETE).is_file() and (folder / COMPLETE).read_text(encoding="utf-8") == wanted:
            return found
        say(f"  building the environment of {self.name} in {folder} (once; some minutes)")
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(found), "-m", "pip", "install", "--quiet", *self.requirements],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise BenchmarkError(f"the environment of {self.name} cannot be built: {' '.join(last)}")
        (folder / COMPLETE).write_text(wanted, encoding="utf-8")
        return found

    def versions(self) -> str:
        """The installed versions that a figure depends on: "trl 1.16.0, transformers 5.23.0, torch 2.13.0"."""
        packages = ["trl", "transformers", "torch"]
        found = Worker(WORKER, {"task": "versions", "packages": packages}, self.python()).run()["versions"]
        return ", ".join(f"{name} {found[name]}" for name in packages)


TRL = Peer("trl-1.16.0", ("trl==1.16.0", "transformers==5.23.0", "torch>=2.11,<2.14", "peft==0.21.2"))
# The last line of TRL that has a PPO trainer.
TRL_PPO = Peer("trl-1.10.0", ("trl==1.10.0", "transformers==5.23.0", "torch>=2.11,<2.14"))


def _present(requirement: str) -> bool:
    """Whether this interpreter has the very version ("trl==1.16.0")."""
    name, wanted = requirement.split("==")
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False


def _folder() -> Path:
    return Path(os.environ.get("PAIRTUNE_CACHE") or Path.home() / ".cache" / "pairtune") / "peers"
