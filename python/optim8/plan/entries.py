"""The data files: entries of TOML that each say where they come from, and of when they are.

Prices, processors and power grids change; formulas do not. So whatever has a date is an entry of a
file in ``data``, and never a number in the code. An entry is a table ``[kind.name]`` with a
`source`, a `date`, and `checked`: whether somebody has read the number in that source, or gives it
from memory. Users' own files have the same form, add entries, and replace those of the same name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every entry has; one kind of entry is a subclass with the fields of its own.

    Attributes
    ----------
    name : str
        By which it is asked for.
    title : str
        In words.
    source : str
        Where its numbers were read.
    date : str
        Of the source: a year, a month or a day, as in ISO 8601.
    checked : bool
        False for a number given from memory, which an answer then says.
    """

    name: str
    title: str
    source: str
    date: str
    checked: bool = True

    @property
    def origin(self) -> str:
        """Source and date in words, and whether the number is from memory."""
        return f"{self.source}, {self.date}" + (
            "" if self.checked else "; from memory, not checked"
        )


E = TypeVar("E", bound=Entry)
T = TypeVar("T")


def load(kind: str, entry_type: type[E], more: Iterable[Path] = ()) -> dict[str, E]:
    """Return all entries of a kind by name.

    Parameters
    ----------
    kind : str
        Such as ``"grid"``.
    entry_type : type
        The subclass of `Entry` that describes the kind.
    more : iterable of Path, optional
        Files of the user's. A later one goes before an earlier one, and all before ours.

    Returns
    -------
    dict of str to Entry

    Raises
    ------
    ValueError
        If a file is no TOML, or an entry lacks a field or has one too many; names file, entry and
        field.
    OSError
        If a file cannot be read.
    """
    tables = [*_ours(), *((path.name, _parse(path.name, path.read_bytes())) for path in more)]
    found: dict[str, E] = {}
    for file, kinds in tables:
        entries = kinds.get(kind, {})
        if not isinstance(entries, dict):
            raise ValueError(f"{file}: {kind} is no table of entries")
        for name, values in entries.items():
            found[name] = _entry(f"{file}: [{kind}.{name}]", entry_type, name, values)
    return found


def named(kind: str, name: str, entries: dict[str, T]) -> T:
    """Return the entry of a name.

    Raises
    ------
    ValueError
        If there is none; lists those that exist.
    """
    try:
        return entries[name]
    except KeyError:
        known = ", ".join(sorted(entries))
        raise ValueError(f"unknown {kind} {name!r} (known: {known})") from None


@cache
def _ours() -> tuple[tuple[str, dict[str, Any]], ...]:
    folder = files("optim8.plan") / "data"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return tuple((name, _parse(name, (folder / name).read_bytes())) for name in names)


def _parse(name: str, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())  # TOML is UTF-8, wherever it is read
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _entry(label: str, entry_type: type[E], name: str, values: object) -> E:
    if not isinstance(values, dict):
        raise ValueError(f"{label} is no table")
    known = {field.name for field in fields(entry_type)} - {"name"}
    if unknown := values.keys() - known:
        raise ValueError(f"{label} has unknown {', '.join(sorted(unknown))}")
    hints = get_type_hints(entry_type)
    for key, value in values.items():
        if not _is_of(value, hints[key]):
            expected = getattr(hints[key], "__name__", str(hints[key]))
            raise ValueError(f"{label}: {key} is {value!r} (expected {expected})")
    try:
        return entry_type(name=name, **values)
    except TypeError as error:
        raise ValueError(f"{label}: {str(error).partition('() ')[2]}") from None


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value of TOML is of a field's type: a plain one, a list of one, or one or None."""
    if members := get_args(hint):
        if isinstance(hint, UnionType):
            return any(_is_of(value, member) for member in members)
        return isinstance(value, list) and all(_is_of(item, members[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return type(value) is hint
