"""What a person says of how rows are to be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pairtune.data.scales import Scale

#: Which pairs are made of several answers to a prompt.
BEST_WORST, ALL, ADJACENT, BEST_REST = PAIR_UPS = ("best-worst", "all", "adjacent", "best-rest")

#: Whether the pairs that are made of one row share its weight, or have it each.
BY_PROMPT, BY_PAIR = WEIGHTS = ("prompt", "pair")


@dataclass(frozen=True)
class Asked:
    """How rows are to be read, where they do not say it themselves. The defaults say nothing."""

    format: str = "auto"  #: the name of a shape, or "auto"
    columns: Mapping[str, str] = field(default_factory=dict)  #: our name of a column: the file's
    pair_up: str = BEST_WORST
    weight: str = BY_PROMPT
    min_margin: float = 0.0  #: scores no further apart than this are a tie
    label_threshold: float = 0.0  #: a label that is a number is desirable from here on; 0: labels are true or false
    data_config: str = ""  #: of a hub dataset: which of its configurations, split and revision
    data_split: str = "train"
    data_revision: str = ""
    strict: bool = False  #: no row may be left out
    scales: Mapping[str, Scale] = field(default_factory=dict)  #: of the columns with verdicts: found in rows


NOTHING = Asked()
