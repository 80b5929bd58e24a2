"""Tables of runs: comma-separated files with a header, one run in a line.

Columns that a question has no use for are passed over, so that a table may name its runs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def read(path: Path, columns: Mapping[str, Callable[[str], float]]) -> dict[str, Array]:
    """Read some columns of a table.

    Parameters
    ----------
    path : Path
        Of the file.
    columns : mapping of str to callable
        The names of the columns, and what reads their values from text, as in
        `optim8.plan.quantity`.

    Returns
    -------
    dict of str to array
        Of float64, each with one value for each run.

    Raises
    ------
    ValueError
        If there are no runs, a column or a value is missing, or one is not what its reader takes;
        names the file, line, column and value.
    OSError
        If the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file, skipinitialspace=True)
        found = lines.fieldnames or []
        if missing := [name for name in columns if name not in found]:
            raise ValueError(
                f"{path}: line 1: no column {' and '.join(missing)} (found: {', '.join(found)})"
            )
        values: dict[str, list[float]] = {name: [] for name in columns}
        for line in lines:
            for name, parse in columns.items():
                try:
                    values[name].append(parse(line[name] or ""))
                except ValueError as error:
                    label = f"{path}: line {lines.line_num}: column {name}"
                    raise ValueError(f"{label}: {error}") from None
    if not all(values.values()):
        raise ValueError(f"{path}: the table has no runs")
    return {name: np.array(column) for name, column in values.items()}
