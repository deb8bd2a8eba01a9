"""All benchmarks in turn, and their table into docs/performance.md."""

import argparse
import sys

from benchmarks import dpo, lora, ppo, reward, sampling, scale, startup
from benchmarks.options import Options, add_flags, finish
from benchmarks.processes import OURS, Worker, say
from benchmarks.results import Row
from benchmarks.table import write

ALL = {"dpo": dpo, "lora": lora, "reward": reward, "sampling": sampling, "ppo": ppo, "startup": startup, "scale": scale}


def measure_all(options: Options) -> dict[str, list[Row]]:
    """Every benchmark's rows; each is in the document's table as soon as it is measured."""
    rows: dict[str, list[Row]] = {}
    machine = Worker(OURS, {"task": "machine"}).run()["machine"]
    for name, benchmark in ALL.items():
        say(f"{name}:")
        rows[name] = benchmark.measure(options)
        write(rows, machine)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_flags(parser)
    sys.exit(finish(parser.parse_args(), measure_all))
