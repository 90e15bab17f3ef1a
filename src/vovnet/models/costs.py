"""What every listed model costs on paper: `costs.csv`, which counting anew takes half a minute for.

`tests/models/test_costs.py` counts it again; `python tools/cost_table.py` writes it.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).with_name("costs.csv")


class Cost(NamedTuple):
    """Parameters, and multiply–accumulates for one image of `input`×`input` pixels, with the
    default classes; shipped weights with their own, batch norms folded."""

    params: int
    macs: int
    input: int


@cache
def listed_costs() -> dict[str, Cost]:
    """The cost of every listed model and of all shipped weights, by name."""
    with PATH.open(encoding="utf-8", newline="") as file:
        return {
            row["name"]: Cost(*(int(row[field]) for field in Cost._fields))
            for row in csv.DictReader(file)
        }
