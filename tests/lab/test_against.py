"""A bench against an earlier one."""

import csv
from dataclasses import replace

import pytest

from vovnet.errors import VovnetError
from vovnet.lab.against import compare, read_earlier
from vovnet.lab.export_csv import write_csv
from vovnet.lab.measurement import measured
from vovnet.lab.row import BenchRow


def row(ms: list[float] | None, model: str = "a", rate: float = 1e11, **values) -> BenchRow:
    made = BenchRow(model, 224, None, 1, "cpu", "eager", "fp32", **values)
    if ms is None:
        return replace(made, error="no memory")
    matmul = measured([[rate]], "FLOP/s", "")
    return replace(made, latency_ms=measured([ms], "ms", ""), matmul_flops_per_s=matmul)


@pytest.mark.parametrize(
    ("ms", "verdict", "slower"),
    [
        ([10.0, 10.2, 10.4], "same", False),
        ([11.0, 11.2, 11.4], "slower", True),
        ([10.0, 12.0, 14.0], "same", False),  # the fastest are as fast as before
        ([9.0, 9.2, 9.3], "faster", False),
        (None, "failed: no memory", True),
    ],
)
def test_a_row_is_slower_if_all_of_it_is(tmp_path, ms, verdict, slower):
    write_csv(tmp_path / "old.csv", [row([10.0, 10.1, 10.2]), row([5.0], "b")])
    changes, _ = compare([row(ms)], read_earlier(tmp_path / "old.csv"))
    [change] = changes
    assert (change.verdict, change.slower, change.before) == (verdict, slower, 10.1)


def test_what_cannot_be_opened_or_is_wrong_now_counts(tmp_path):
    write_csv(tmp_path / "old.csv", [row([10.0])])
    earlier = read_earlier(tmp_path / "old.csv")
    unopened = replace(row(None), imgsz=None)
    [change] = compare([unopened], earlier)[0]
    assert (change.verdict, change.slower) == ("failed: no memory", True)
    [change] = compare([row([5.0], correct=False)], earlier)[0]
    assert (change.verdict, change.slower) == ("wrong output", True)


def test_what_there_was_not_before_is_new_and_more_may_be_allowed(tmp_path):
    write_csv(tmp_path / "old.csv", [row([10.0])])
    earlier = read_earlier(tmp_path / "old.csv")
    assert compare([row([10.0], "b")], earlier)[0][0].verdict == "new"
    assert compare([row([12.0])], earlier, 0.25)[0][0].verdict == "same"
    assert compare([row([12.0])], earlier, 0.25)[0][0].ratio == pytest.approx(1.2)


def test_other_machines_and_versions_are_told(tmp_path):
    def on(cpu: str, torch: str) -> dict:
        facts = {"model": cpu, "cores": 2, "flags": ["avx2"]}
        return {"cpu": facts, "versions": {"torch": torch}}

    write_csv(tmp_path / "old.csv", [row([10.0], environment=on("A", "2.11"))])
    earlier = read_earlier(tmp_path / "old.csv")
    assert compare([row([10.0], environment=on("A", "2.11"))], earlier)[1] == []
    _, said = compare([row([10.0], rate=5e10, environment=on("B", "2.12"))], earlier)
    assert said[0] == "cpu differ: A (2 cores) before, B (2 cores) now"
    assert said[1] == "versions differ: torch 2.11 before, torch 2.12 now"
    assert "the matrix product itself ran at 0.50 of its rate before" in said[2]


@pytest.mark.parametrize("text", ["", "model,runtime\na,b\n", "\0"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "old.csv").write_text(text)
    with pytest.raises(VovnetError, match="--against"):
        read_earlier(tmp_path / "old.csv")
    with pytest.raises(VovnetError, match="cannot be read"):
        read_earlier(tmp_path / "none.csv")


@pytest.mark.slow
def test_bench_exits_with_4_where_a_row_is_slower(run, refused, nano, tmp_path):
    options = ("bench", nano, "--seconds", 0.05, "--repeats", 2, "--no-memory")
    assert run(*options, "--csv", "old.csv").code == 0
    same = run(*options, "--against", "old.csv", "--max-slower", "900%")
    assert same.code == 0, same.err
    assert "ms before" in same.out
    with (tmp_path / "old.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        for key in ("latency_ms_p5", "latency_ms_p50"):
            line[key] = str(float(line[key]) / 20)
    with (tmp_path / "fast.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert run(*options, "--against", "fast.csv", "--max-slower", "0.5").code == 4
    assert "--max-slower x: write a share" in refused(*options, "--max-slower", "x")
