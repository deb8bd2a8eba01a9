"""How a benchmark ends: rows as JSON or as a table, or one line and exit code 1."""

import argparse
import json
from typing import Any

from benchmarks.options import add_flags, finish
from benchmarks.results import BenchmarkError, versus

ROW = versus("trl", "pairs/s", [4.0], [2.0], peer_version="trl 1", settings={})


def given(*flags: Any) -> Any:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parser.parse_args(flags)


def test_json_is_a_list_of_all_rows(capsys: Any) -> None:
    assert finish(given("--json", "--pairs", "3"), lambda options: {"a": [ROW] * options.pairs, "b": [ROW]}) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["ratio"]["median"] for row in rows] == [2.0] * 4


def test_table_otherwise(capsys: Any) -> None:
    assert finish(given(), lambda options: {"a": [ROW]}) == 0
    assert "a trl" in capsys.readouterr().out


def test_what_must_not_count_is_one_line_and_exit_code_1(capsys: Any) -> None:
    def measure(options: Any) -> None:
        raise BenchmarkError("the losses differ")

    assert finish(given(), measure) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "benchmarks: the losses differ\n"
