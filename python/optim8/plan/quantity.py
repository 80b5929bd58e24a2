"""Numbers with units: how the command line reads them, and how answers show them."""

from __future__ import annotations

import math
import re

#: Bytes in a unit of memory.
BYTES = {"B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    BYTES[f"{_letter}B"] = 1000**_power
    BYTES[f"{_letter}iB"] = 1024**_power


def positive(text: str) -> float:
    """Read a number above zero.

    Raises
    ------
    ValueError
        If it is no number, not finite, or not above zero.

    Examples
    --------
    >>> positive("5.76e23")
    5.76e+23
    """
    value = _number(text)
    if value <= 0:
        raise ValueError(f"expected a number above 0, found {text!r}")
    return value


def fraction(text: str) -> float:
    """Read a number above 0, up to 1.

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> fraction("0.3")
    0.3
    """
    value = positive(text)
    if value > 1:
        raise ValueError(f"expected a fraction above 0, up to 1, found {text!r}")
    return value


def count(text: str) -> int:
    """Read a whole number above zero; exponents are welcome.

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> count("175e9")
    175000000000
    """
    value = positive(text)
    if value != int(value):
        raise ValueError(f"expected a whole number, found {text!r}")
    return int(value)


def memory(text: str) -> int:
    """Read an amount of memory, in bytes.

    Raises
    ------
    ValueError
        If there is no number above zero, or the unit is not one of `BYTES`.

    Examples
    --------
    >>> memory("24GiB")
    25769803776
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or (found[2] or "B") not in BYTES:
        raise ValueError(f"expected bytes, such as 24GiB or 24e9, found {text!r}")
    n_bytes = positive(found[1]) * BYTES[found[2] or "B"]
    if not 1 <= n_bytes < 2**63:
        raise ValueError(f"expected a byte or more, and fewer than 2^63, found {text!r}")
    return int(n_bytes)


def show_bytes(n_bytes: float) -> str:
    """Show an amount of memory in the largest binary unit that leaves a number of 1 or more.

    Examples
    --------
    >>> show_bytes(25769803776)
    '24.00 GiB'
    """
    for letter in "PTGMK":
        if n_bytes >= BYTES[f"{letter}iB"]:
            return f"{n_bytes / BYTES[f'{letter}iB']:.2f} {letter}iB"
    return f"{n_bytes:.0f} B"


def show_count(value: float) -> str:
    """Show a large number with three digits, in thousands, millions, billions or trillions.

    Examples
    --------
    >>> show_count(70.06e9), show_count(5.76e23)
    ('70.1 B', '5.76e+23')
    >>> show_count(999_999_999)
    '1 B'
    """
    rounded = float(f"{value:.3g}")  # which may have a larger unit
    for power, letter in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if 10**power <= rounded < 10**15:
            return f"{rounded / 10**power:.3g} {letter}"
    return f"{value:.3g}"


def check_positive(**values: float) -> None:
    """Check numbers of a formula, by their names.

    Raises
    ------
    ValueError
        If one is not above zero.

    Examples
    --------
    >>> check_positive(hours=2.0, devices=0)
    Traceback (most recent call last):
        ...
    ValueError: Invalid devices: 0 (expected above 0)
    """
    for name, value in values.items():
        if not value > 0:  # nor NaN
            raise ValueError(f"Invalid {name}: {value} (expected above 0)")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"expected a number, found {text!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {text!r}")
    return value
