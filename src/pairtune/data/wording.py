"""Text from data in messages: quoted, shortened, made safe for a terminal."""

from collections.abc import Iterable, Mapping


def quoted(text: str, limit: int = 40) -> str:
    """``text`` between double quotes, shortened, with everything unprintable escaped: safe in a terminal."""
    shown = text if len(text) <= limit else text[: limit - 3] + "..."
    return f'"{escaped(shown.replace(chr(92), chr(92) * 2)).replace(chr(34), chr(92) + chr(34))}"'


def escaped(text: str) -> str:
    """``text`` with every unprintable character written as an escape; printable text is unchanged."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names for a message: quoted, separated by commas, the rest counted."""
    all_names = list(names)
    text = ", ".join(quoted(name) for name in all_names[:limit])
    return text + (f" and {len(all_names) - limit} more" if len(all_names) > limit else "")


def kind(value: object) -> str:
    """What JSON calls a value of that type."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else "an object" if isinstance(value, Mapping) else type(value).__name__
