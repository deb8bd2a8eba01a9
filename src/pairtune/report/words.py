"""Names, numbers and strange text, written the same way on the page, in the figures and in the terminal."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pairtune.estimate import Estimate
from pairtune.report.records import REFERENCE, Row

NOTHING = "–"
_SPELLED = {"simpo": "SimPO", REFERENCE: "Reference"}
_JOINERS = {"\u200c", "\u200d"}  # joiners of Persian, of Indic scripts and of emoji
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def arm_name(arm: str) -> str:
    """The name people use: DPO for dpo, online DPO for online-dpo."""
    if arm.startswith("online-"):
        return f"online {arm_name(arm.removeprefix('online-'))}"
    if n := best_of(arm):
        return f"best of {n}"
    return _SPELLED.get(arm, visible(arm.upper() if arm.isascii() and arm.isalpha() and len(arm) <= 4 else arm))


def best_of(arm: str) -> int:
    """How many answers of the reference an arm takes the best of: 4 of best-of-4; 0 if it is none of that name."""
    found = re.fullmatch(r"best-of-(\d{1,6})", arm, re.ASCII)
    return int(found[1]) if found else 0


def setting(value: Any) -> str:
    """The value of one parameter."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}".replace("-", "−") if plain else visible(str(value))


def varied(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters in which candidates of one method differ, each given as its parameters by name."""
    names = dict.fromkeys(name for each in candidates for name in each)
    return [name for name in names if any(each.get(name) != candidates[0].get(name) for each in candidates)]


def parameters(values: Row | None) -> str:
    """beta 0.1, gamma 0.5"""
    return ", ".join(f"{visible(name.replace('_', ' '))} {setting(value)}" for name, value in (values or {}).items())


def choice(summary: Row, arm: str) -> str | None:
    """best of 4 (1 failed); None where nothing was to choose."""
    candidates = (summary.get("grid") or {}).get(arm) or []
    failed = sum(bool(row.get("failed")) for row in candidates)
    return f"best of {len(candidates)}{f' ({failed} failed)' if failed else ''}" if len(candidates) > 1 else None


def against_chance(accuracy: Estimate | None) -> str:
    """Of an accuracy: what its interval says about guessing, in two words; nothing where it lies above."""
    if accuracy is None:
        return ""
    if accuracy.is_all_ties:
        return "all ties"
    return {"above": "", "level": "like chance", "below": "below chance"}[accuracy.against_chance]


def whole_run(summary: Row) -> str:
    """What the run took by the clock, and what that comprises; nothing where it is not known."""
    if not (total := summary.get("seconds_total")):
        return ""
    told = seconds(total)
    if not (took := summary.get("whole_run")):  # of an earlier version, which added up the stages
        return f"{told}, stages only"
    told += " by the clock, from the start of the command to its report: loading, training, measuring, drawing"
    if len(took["sittings"]) > 1:
        told += f"; {len(took['sittings'])} sittings of {listed(map(seconds, took['sittings']))}"
    if took["kept_seconds"]:
        told += f"; {seconds(took['kept_seconds'])} of it is work kept from earlier runs, at what it took then"
    return told


def visible(text: str) -> str:
    """The text with everything that could hide, reorder or command made visible.

    Control characters become their pictures (escape is ␛), and direction overrides, invisible marks and lone
    surrogates become ‹U+202E›. Line feed, tab and the joiners that scripts need stay.
    """
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character in _JOINERS:
        return character
    if code < 0x20 or code == 0x7F:
        return chr(0x2421 if code == 0x7F else 0x2400 + code)
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"‹U+{code:04X}›"
    return character


def decimal(value: float) -> str:
    """Two decimals, or two significant digits where those would read as zero; powers of ten where it is long."""
    if abs(value) < 1e-9:  # what rounding leaves of a zero
        value = 0.0
    if abs(value) >= 1e4 or 0 < abs(value) < 1e-4:
        return scientific(value)
    return _rounded(value, 2)


def tenths(value: float) -> str:
    """One decimal."""
    return _fixed(value, 1)


def thousandths(value: float) -> str:
    """Three decimals, for nats per token."""
    return _fixed(value, 3)


def percent(share: float) -> str:
    """A share as hundredths."""
    return f"{_rounded(100 * share, 1)}%"


def points(share: float) -> str:
    """A difference of two shares, in hundredths."""
    return f"{_rounded(100 * share, 1)} points"


def _rounded(value: float, places: int) -> str:
    """So many decimals, or two significant digits where those would read as zero."""
    text = _fixed(value, places)
    if float(text.replace("−", "-").replace(",", "")) or abs(value) < 1e-9:
        return text
    return f"{value:.2g}".replace("-", "−")


def _fixed(value: float, places: int) -> str:
    """So many decimals. A zero has no sign."""
    text = f"{value:,.{places}f}"
    return (text if text.strip("-0.,") else text.removeprefix("-")).replace("-", "−")


def ratio(value: float) -> str:
    """How many times as much: two or more digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def whole(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Seconds, whole from ten on."""
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


def gigabytes(value: float) -> str:
    """Bytes as GB of 10⁹ bytes."""
    return f"{value / 1e9:.1f} GB"


def scientific(value: float) -> str:
    """3.1×10¹⁴"""
    if not value:
        return "0"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}×10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")


def interval(found: Estimate, show: Callable[[float], str] = decimal) -> str:
    """The interval as "low to high", the unit written once."""
    if found.ci95 is None:
        return "no interval"
    low, high = map(show, found.ci95)
    return f"{low.removesuffix(' points').removesuffix('%')} to {high}"


def sureness(found: Estimate, show: Callable[[float], str] = decimal) -> str:
    """95% interval 0.53 to 0.71, n = 256: what stands behind a mean within a sentence."""
    if found.ci95 and found.ci95[0] == found.ci95[1]:
        return f"all alike, n = {whole(found.n)}"
    return f"{'95% interval ' if found.ci95 else ''}{interval(found, show)}, n = {whole(found.n)}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """a, b and c"""
    *before, final = words
    return f" {last} ".join(filter(None, [", ".join(before), final]))
