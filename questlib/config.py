"""Names that a user may misspell: one check, one kind of message."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Real


def refuse_unknown(given: Iterable[str], *, known: Collection[str], what: str) -> None:
    """Refuse names that do not exist, all at once, each with its nearest valid one.

    Args:
        given: The names to check.
        known: The valid names.
        what: What the names are, in the singular, for the message.

    Raises:
        ValueError: If a name is not known.
    """
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    hints = []
    for name in unknown:
        nearest = get_close_matches(str(name), list(known), n=1, cutoff=0.4)
        hints.append(f"{name!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else ""))
    raise ValueError(f"unknown {what}: {', '.join(hints)}; known: {', '.join(sorted(known))}")


def refuse_outside(value: float, *, low: float, high: float, what: str) -> None:
    """Refuse a number outside [low, high].

    Args:
        value: The number.
        low: The least allowed.
        high: The greatest allowed.
        what: The parameter's name, for the message.

    Raises:
        TypeError: If the value is not a number.
        ValueError: If it lies outside.
    """
    # NumPy's numbers are Real too; a bool is an int, but no quantity.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number in [{low}, {high}], however: {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what} must lie in [{low}, {high}], however: {value!r}")
