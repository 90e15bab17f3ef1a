"""Rows of `vovnet bench` against those of an earlier one: what became slower."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vovnet.errors import VovnetError
from vovnet.lab.export_csv import csv_row
from vovnet.lab.row import BenchRow

_SAME = ("model", "runtime", "precision", "infer_img_size", "infer_batch_size", "device")
_MACHINE = ("cpu", "instructions", "versions")
_NEEDED = (*_SAME, "latency_ms_p5", "latency_ms_p50", "error")

Line = dict[str, str]  # of a CSV file


@dataclass(frozen=True)
class Change:
    """A row's milliseconds (medians) before and now; None where there are none. `slower`: it is,
    or it fails, or is wrong."""

    model: str
    runtime: str
    precision: str
    before: float | None
    now: float | None
    slower: bool
    verdict: str

    @property
    def ratio(self) -> float | None:
        """Now over before."""
        return self.now / self.before if self.now and self.before else None


def read_earlier(path: Path) -> list[Line]:
    """The lines of what `vovnet bench --csv` wrote; raises `VovnetError` for anything else."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise VovnetError(f"--against {path}: cannot be read ({error})") from None
    if not lines or any(lines[0].get(name) is None for name in _NEEDED):
        raise VovnetError(f"--against {path}: is not what vovnet bench --csv writes")
    return lines


def compare(
    rows: Sequence[BenchRow], earlier: Sequence[Line], most: float = 0.05
) -> tuple[list[Change], list[str]]:
    """What became of every row, and what is to be said of the two machines.

    A row is slower if its median and its fastest twentieth both take more than 1 + `most` times as
    long as before, or if it fails or its output is wrong now: another program that runs now and
    then lifts the median alone.
    """
    known = {key: line for line in earlier for key in (_key(line), _key(line, sized=False))}
    now = [{k: "" if v is None else str(v) for k, v in csv_row(row).items()} for row in rows]
    # What cannot be opened has no size.
    keys = [_key(line, sized=not line["error"]) for line in now]
    changes = [_change(line, known.get(key), most) for line, key in zip(now, keys, strict=True)]
    return changes, _differences(earlier, now)


def _key(line: Line, *, sized: bool = True) -> tuple[str, ...]:
    return tuple(line[name] for name in _SAME if sized or name != "infer_img_size")


def _change(now: Line, before: Line | None, most: float) -> Change:
    name = (now["model"], now["runtime"], now["precision"])
    old = None if before is None else _number(before["latency_ms_p50"])
    new = _number(now["latency_ms_p50"])
    if before is None or old is None:
        return Change(*name, old, new, False, "new")
    if new is None:
        return Change(*name, old, new, True, f"failed: {now['error']}")
    if now["correct"] == "False" != before.get("correct"):
        return Change(*name, old, new, True, "wrong output")
    ratios = [_ratio(now[key], before[key]) for key in ("latency_ms_p50", "latency_ms_p5")]
    slower = min(ratios) > 1 + most
    faster = max(ratios) < 1 / (1 + most)
    return Change(*name, old, new, slower, "slower" if slower else "faster" if faster else "same")


def _ratio(now: str, before: str) -> float:
    return (_number(now) or 0.0) / (_number(before) or float("inf"))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _differences(earlier: Sequence[Line], now: Sequence[Line]) -> list[str]:
    """Where the machines or the versions differ, or the machine itself was slower."""
    said: list[str] = []
    for name in _MACHINE:
        then, here = ({line.get(name) or "" for line in lines} - {""} for lines in (earlier, now))
        if then and here and then != here:
            said.append(f"{name} differ: {_listed(then)} before, {_listed(here)} now")
    rates = [_rate(earlier), _rate(now)]
    if all(rates) and not 0.9 < rates[1] / rates[0] < 1.1:
        said.append(
            f"the matrix product itself ran at {rates[1] / rates[0]:.2f} of its rate before: the "
            "machine, or what else it does, has changed"
        )
    return said


def _listed(texts: set[str]) -> str:
    return "; ".join(sorted(texts))


def _rate(lines: Sequence[Line]) -> float:
    """The median rate of the matrix product; 0 where it was not measured."""
    rates: list[Any] = sorted(
        filter(None, (_number(x.get("matmul_flops_per_s") or "") for x in lines))
    )
    return rates[len(rates) // 2] if rates else 0.0
