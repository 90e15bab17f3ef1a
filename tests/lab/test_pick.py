"""Picking for real, on a small detector with a short protocol; and what is written of it."""

import json
from functools import cache

import pytest
import torch
import yaml

from vovnet.cli import main
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.lab.bench import Protocol, bench_jobs
from vovnet.lab.competitor import Job
from vovnet.lab.pick import (
    accuracy_of,
    config_text,
    jobs_for,
    pick,
    read_accuracies,
    table,
    to_candidate,
)
from vovnet.lab.row import BenchRow
from vovnet.models.weights import load_detector
from vovnet.runtimes import write_onnx

QUICK = Protocol(seconds=0.02, repeats=2, warmup=0, settling=0, threads=1, memory=False)


@pytest.fixture(scope="module")
def picked(nano):
    """A choice between float32 and bf16 in eager, and a file that is not there."""
    jobs = jobs_for([str(nano), "missing.safetensors"], runtimes=["eager"])
    return pick(jobs, {str(nano): 0.3}, {"latency": 1e5}, screening=QUICK, final=QUICK)


def test_the_answer_is_the_argmin_of_its_own_table(picked, nano):
    rows = table(picked)
    usable = [row for row in rows if row["verdict"].startswith(("chosen", "on the", "dominated"))]
    assert {row["model"] for row in usable} == {str(nano)}
    assert rows[0]["verdict"] == "chosen"
    assert rows[0]["latency_ms"] == min(row["latency_ms"] for row in usable)
    assert [row["measured"] for row in usable] == ["final", "final"]  # against each other
    assert len(rows) == 4
    missing = [row for row in rows if row["model"] == "missing.safetensors"]
    assert all("no such weights file" in row["verdict"] for row in missing)
    assert picked.objective == "latency"  # the accuracy of one is not known


def test_rows_survive_json(picked):
    for row in picked.rows.values():
        assert BenchRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_latency_is_from_file_to_boxes(picked):
    job = picked.job_of(picked.decision.choice)
    row = picked.rows[job]
    assert picked.decision.choice.values["latency"] == row.stages_ms["end_to_end"].value
    assert row.stages_ms["end_to_end"].value > row.stages_ms["decode"].value > 0


def test_the_config_tells_the_choice(picked, nano):
    config = yaml.safe_load(config_text(picked))
    assert config["weights"] == str(nano)
    assert (config["format"], config["runtime"], config["imgsz"]) == ("torch", "eager", 64)
    assert config["measured"]["accuracy"] == 0.3
    assert config["measured"]["latency_ms"]["value"] > 0
    assert config["environment"]["versions"]["torch"]


def test_rows_become_candidates(bench_row):
    row = bench_row("m", 50.0, memory=2e8, joules=1.5)
    values = to_candidate(BenchRow.from_dict(row), 0.4).values
    assert values == {
        "latency": pytest.approx(50.0),
        "accuracy": 0.4,
        "energy": pytest.approx(1.5),
        "memory": pytest.approx(200.0),
    }
    without = to_candidate(BenchRow.from_dict(bench_row("m")), None)
    assert "--val-results" in without.missing["accuracy"]
    assert without.missing["energy"] == "no energy counter can be read"
    for error, words in ((0.9, "relative error 0.9"), (None, "of another shape, or not finite")):
        wrong = BenchRow.from_dict(bench_row("m", correct=False, relative_error=error))
        assert to_candidate(wrong, None).unusable == f"wrong output: {words}"


def test_latency_is_that_of_the_whole_way_where_it_is_known(bench_row):
    whole = bench_row("m", 70.0)["latency_ms"]
    row = BenchRow.from_dict(bench_row("m", 50.0, stages_ms={"end_to_end": whole}))
    assert to_candidate(row, None).values["latency"] == pytest.approx(70.0)
    assert to_candidate(row, None, whole=False).values["latency"] == pytest.approx(50.0)


def test_int8_has_the_accuracy_that_was_measured_of_it_and_no_other(bench_row):
    row = BenchRow.from_dict(bench_row("m", precision="int8"))
    job, plain = Job("m", runtime="onnxruntime", precision="int8"), Job("m", precision="bf16")
    known: dict = {"m": 0.4}
    assert [accuracy_of(one, known) for one in (job, plain)] == [None, 0.4]
    assert accuracy_of(job, known | {job: 0.3}) == 0.3
    assert accuracy_of(plain, known | {plain: 0.39}) == 0.39
    assert to_candidate(row, 0.3).values["accuracy"] == 0.3
    missing = to_candidate(row, None).missing["accuracy"]
    assert missing == "int8 was calibrated on noise; give --data to evaluate on"


@pytest.mark.slow
def test_a_stranger_is_compared_by_the_network_alone(nano, tmp_path):
    detector = load_detector(nano)
    path = tmp_path / "nano.onnx"
    write_onnx(detector.network, torch.zeros(1, 3, 64, 64), path)
    jobs = [Job(str(nano)), Job(str(path), runtime="onnxruntime")]
    found = pick(jobs, {}, {}, screening=QUICK, final=QUICK)
    for job, candidate in found.candidates.items():
        assert candidate.values["latency"] == found.rows[job].latency_ms.value


def test_jobs():
    everything = jobs_for(["a"])
    assert {job.runtime for job in everything} == {
        *("eager", "channels_last", "onnxruntime", "openvino", "ncnn"),
    }
    assert "fp16" not in {job.precision for job in everything}
    [job] = jobs_for(["a"], runtimes=["compile"], precisions=["bf16"])
    assert (job.runtime, job.precision) == ("compile", "bf16")
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        jobs_for(["a"], runtimes=["onnxrutime"])
    with pytest.raises(VovnetError, match="no runtime has that on cpu"):
        jobs_for(["a"], runtimes=["tensorrt"])


def test_accuracies_are_read_from_what_val_prints(tmp_path):
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"weights": "a", "map_50_95": 0.25, "map_50": 0.5}))
    assert read_accuracies(path) == {"a": 0.25}
    path.write_text(json.dumps([{"weights": w, "map_50_95": 0.5} for w in "ab"]))
    assert read_accuracies(path) == {"a": 0.5, "b": 0.5}
    for text in ("{", "[1]", '{"weights": "a"}', '{"weights": "a", "map_50_95": null}'):
        path.write_text(text)
        with pytest.raises(VovnetError, match="is not what vovnet val --json prints"):
            read_accuracies(path)
    with pytest.raises(VovnetError, match="cannot be read"):
        read_accuracies(tmp_path / "missing.json")


# ---- the verb, with its short protocol in place of the real one


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr("vovnet.lab.pick.SCREENING", QUICK)
    monkeypatch.setattr("vovnet.lab.pick.FINAL", QUICK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_verb_picks_and_writes(quick, capsys):
    results = quick / "val.json"
    results.write_text(json.dumps({"weights": "vovdet_nano.voc", "map_50_95": 0.24}))
    options = ["--candidates", "vovdet_nano.voc", "--runtime", "eager", "--precision", "fp32"]
    code = main(["pick", *options, "--max-ms", "1e5", "--val-results", str(results), "--json"])
    out, err = capsys.readouterr()
    assert code == 0
    answer = json.loads(out)
    assert answer["choice"] == answer["table"][0]
    assert answer["choice"]["map_50_95"] == 0.24
    assert answer["objective"] == "accuracy"
    assert "screening 1 candidates" in err
    written = yaml.safe_load((quick / answer["config"]).read_text())
    assert written["weights"] == "vovdet_nano.voc"


@pytest.mark.slow
def test_what_weights_say_of_themselves_is_shown_and_decides_nothing(quick, capsys, monkeypatch):
    measure = cache(bench_jobs)  # the second call prints what the first has measured
    monkeypatch.setattr(
        "vovnet.lab.pick.bench_jobs", lambda jobs, protocol, note: measure(tuple(jobs), protocol)
    )
    options = ["--candidates", "vovdet_nano.voc", "--runtime", "eager", "--precision", "fp32"]
    assert main(["pick", *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    [row] = answer["table"]
    assert row["map_50_95"] == pytest.approx(0.3237, abs=1e-4)
    assert row["map_compared"] is False
    assert answer["objective"] == "latency"
    assert main(["pick", *options]) == 0
    assert "as the weights' files say, on their own data" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_measured_where_the_choice_depends_on_it(quick, nano):
    jobs = jobs_for([str(nano)], runtimes=["eager"], precisions=["fp32"])
    limited = pick(jobs, {}, {"memory": 1e-3})
    assert limited.decision.choice is None  # not one finalist: it was known from the screening
    assert limited.decision.fell[0][1].startswith("takes more memory than 0.001 MB: ")


@pytest.mark.parametrize(
    ("limits", "early", "metered"),
    [({}, False, False), ({"memory": 1e9}, True, False), ({"energy": 1e9}, False, True)],
)
def test_all_are_screened_shortly_and_finalists_measured_as_bench_does(
    bench_row, monkeypatch, limits, early, metered
):
    """What costs a process or long windows is screened only where the choice depends on it."""
    protocols = []

    def bench_jobs(jobs, protocol, note):
        protocols.append(protocol)
        return [BenchRow.from_dict(bench_row(job.model, joules=1.0)) for job in jobs]

    monkeypatch.setattr("vovnet.lab.pick.bench_jobs", bench_jobs)
    pick([Job("a"), Job("b")], {}, limits)
    brief = Protocol(seconds=0.3, repeats=2, warmup=0.2, memory=early, energy=metered)
    assert protocols == [brief, Protocol(memory=not early)]


def test_the_verb_refuses_what_misses_the_limits(quick, nano, capsys):
    options = ["--candidates", str(nano), "--runtime", "eager", "--precision", "fp32"]
    assert main(["pick", *options, "--max-ms", "1e-3"]) == 4
    out, err = capsys.readouterr()
    assert "slower than 0.001 ms" in out
    assert "closest: " in err
    assert "misses --max-ms 0.001 by" in err
    assert not list(quick.rglob("*.yaml"))


def test_the_verb_with_bad_input(quick, capsys):
    for options, words in (
        (["--max-ms", "0"], "must be above 0"),
        (["--candidates", "nothing.safetensors", "--runtime", "eager"], "no such weights file"),
        (["--runtime", "eagre"], "Did you mean eager"),
        (["--objective", "beauty"], "beauty"),
    ):
        assert main(["pick", *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err.splitlines()[-1]
