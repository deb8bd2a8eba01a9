"""What the score that judges every arm is called: it is gold only where it is what the labels were made from."""

from collections.abc import Mapping
from typing import Any


def score_name(summary: Mapping[str, Any]) -> str:
    """The score's name in running text: gold reward, or judge score where a judge stands in for it."""
    return "judge score" if _is_judge(summary) else "gold reward"


def scorer_name(summary: Mapping[str, Any]) -> str:
    """Who gives it: gold scorer, or judge."""
    return "judge" if _is_judge(summary) else "gold scorer"


def _is_judge(summary: Mapping[str, Any]) -> bool:
    return (summary.get("gold_scorer") or {}).get("kind") == "judge"
