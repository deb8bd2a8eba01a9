"""A mean that never stands alone: as it is computed, saved, read again and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

# Values that all agree, from which on that is not chance: 2·½⁶ is below 5%.
ENOUGH = 6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, the number of values it is over, and its 95% interval; None where there can be none (of one prompt)."""

    mean: float
    n: int
    ci95: tuple[float, float] | None

    @property
    def is_detectable(self) -> bool:
        """Of a difference: whether its interval excludes zero, and there are enough values for it to mean something.

        A bound that is exactly zero does not exclude it.
        """
        return self.ci95 is not None and self.n >= ENOUGH and (self.ci95[0] > 0 or self.ci95[1] < 0)

    @property
    def against_chance(self) -> Literal["above", "level", "below"]:
        """Of a share of right ones: whether its whole interval lies above, or below, the 50% of a coin; else level."""
        if self.ci95 is None or self.ci95[0] <= 0.5 <= self.ci95[1]:
            return "level"
        return "above" if self.ci95[0] > 0.5 else "below"

    @property
    def is_all_ties(self) -> bool:
        """Of a share of right ones: whether none was decided, as with the reference, whose margins are all 0."""
        return self.ci95 == (0.5, 0.5)

    def negated(self) -> Self:
        """Of a difference: the other way round. Zero has no sign."""
        bounds = (0.0 - self.ci95[1], 0.0 - self.ci95[0]) if self.ci95 else None
        return type(self)(mean=0.0 - self.mean, n=self.n, ci95=bounds)

    def to_json(self) -> dict[str, Any]:
        """``{"mean": m, "n": n, "ci95": [low, high]}``, plain numbers; ci95 is null where there is no interval."""
        return {"mean": self.mean, "n": self.n, "ci95": list(self.ci95) if self.ci95 else None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of to_json. KeyError names a missing field; IndexError, TypeError, ValueError: no numbers."""
        bounds = fields["ci95"]
        ci95 = (float(bounds[0]), float(bounds[1])) if bounds else None
        return cls(mean=float(fields["mean"]), n=int(fields["n"]), ci95=ci95)
