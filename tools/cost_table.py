"""Count every listed model and all shipped weights anew, for `vovnet models`.

python tools/cost_table.py
"""

import csv

from vovnet.lab import count_models
from vovnet.models import list_models
from vovnet.models.costs import PATH, Cost
from vovnet.shipped import SHIPPED


def cost(name: str) -> Cost:
    """The cost of one."""
    [row] = count_models([name])
    return Cost(row["params"], row["macs"], row["imgsz"])


if __name__ == "__main__":
    names = [*list_models(), *SHIPPED]
    with PATH.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("name", *Cost._fields))
        table.writerows((name, *cost(name)) for name in names)
