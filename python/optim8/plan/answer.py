"""What every command of `optim8 plan` prints: the answer, and all that it assumed.

A plan is worth as much as its assumptions. So each is declared once, as an `Assumption` with a
default and the source of the default, and that one declaration makes the option that overrides it,
its help, the row that shows it, and its entry in the JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What is said of a value that the user gave.
GIVEN = "given"


@dataclass(frozen=True)
class Assumption:
    """A number that an answer rests on, and that an option of the same name overrides.

    Attributes
    ----------
    name : str
        As in Python: the option has dashes for the underscores.
    about : str
        What it is, with its unit.
    parse : callable
        Reads it from text; raises ValueError, with what was expected, if it cannot.
    default : object, optional
        None where it depends on other options: the command then fills it in with `choose`.
    source : str, optional
        Of the default.
    """

    name: str
    about: str
    parse: Callable[[str], Any]
    default: Any = None
    source: str = ""


@dataclass(frozen=True)
class Choice:
    """The value of an assumption in one answer, and where it comes from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Row:
    """A line of an answer's table: what, how much, and what to know about it."""

    name: str
    value: str
    note: str = ""


@dataclass
class Answer:
    """What a command found.

    Attributes
    ----------
    title : str
        Of the table.
    values : dict
        The keys and values of the JSON.
    rows : list of Row
        The table.
    assumptions : dict of str to Choice
        All that it rests on, in order.
    notes : list of str
        What a reader has to know besides: one paragraph each.
    plot : callable, optional
        Draws the answer on a matplotlib figure, where a picture helps.
    """

    title: str
    values: dict[str, Any]
    rows: list[Row]
    assumptions: Mapping[str, Choice] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plot: Callable[[Any], None] | None = None


def option(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a reader of text one that argparse reports in its words."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def add_assumptions(parser: argparse.ArgumentParser, assumptions: Iterable[Assumption]) -> None:
    """Add an option for each assumption."""
    group = parser.add_argument_group("assumptions", "each is printed with the answer")
    for assumption in assumptions:
        default = "" if assumption.default is None else f" ({assumption.default})"
        group.add_argument(
            "--" + assumption.name.replace("_", "-"),
            type=option(assumption.parse),
            help=(assumption.about + default).replace("%", "%%"),
        )


def choose(
    options: argparse.Namespace,
    assumptions: Iterable[Assumption],
    defaults: Mapping[str, Choice] | None = None,
) -> dict[str, Choice]:
    """Return what each assumption is in this answer: as given, else its default.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.
    assumptions : iterable of Assumption
        Those of the command.
    defaults : mapping of str to Choice, optional
        Instead of the assumptions' own, where they follow from other options.
    """
    chosen = {}
    for assumption in assumptions:
        given = getattr(options, assumption.name)
        if given is not None:
            chosen[assumption.name] = Choice(given, GIVEN)
        elif defaults is not None and assumption.name in defaults:
            chosen[assumption.name] = defaults[assumption.name]
        else:
            chosen[assumption.name] = Choice(assumption.default, assumption.source)
    return chosen


def to_json(answer: Answer) -> str:
    """Return the values, the assumptions and the notes of an answer as JSON.

    Examples
    --------
    >>> print(to_json(Answer("", {"kwh": 1.5}, [], {"pue": Choice(1.1, "given")})))
    {
      "kwh": 1.5,
      "assumptions": {
        "pue": {
          "value": 1.1,
          "source": "given"
        }
      },
      "notes": []
    }

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    assumed = {
        name: {"value": choice.value, "source": choice.source}
        for name, choice in answer.assumptions.items()
    }
    found = {**answer.values, "assumptions": assumed, "notes": answer.notes}
    return json.dumps(found, indent=2, allow_nan=False)


def show(answer: Answer) -> None:
    """Print the table, what it assumed, and the notes."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False)  # what is in brackets is the user's
    table = Table(title=answer.title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    has_notes = any(row.note for row in answer.rows)
    if has_notes:
        table.add_column(style="dim")
    for row in answer.rows:
        table.add_row(row.name, row.value, *([row.note] if has_notes else []))
    console.print(table)
    if answer.assumptions:
        table = Table(title="assumed", title_justify="left", show_header=False, box=None)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, choice in answer.assumptions.items():
            shown = f"{choice.value:.6g}" if isinstance(choice.value, float) else str(choice.value)
            table.add_row("--" + name.replace("_", "-"), shown, choice.source)
        console.print(table)
    for note in answer.notes:
        console.print(note, highlight=False)
