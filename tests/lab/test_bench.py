"""Small real benches: what a row says, and how failures are told."""

import csv
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.lab import memory
from vovnet.lab.bench import Protocol, _jobs, bench, bench_jobs, bench_module, one_line
from vovnet.lab.competitor import Job
from vovnet.lab.export_csv import write_csv
from vovnet.lab.measurement import measured
from vovnet.lab.memory import peak_memory
from vovnet.lab.results import rank
from vovnet.lab.row import STAGES, UNITS
from vovnet.lab.target import Target, open_target

BRIEF = Protocol(seconds=0.01, repeats=2, warmup=0, settling=0, memory=False, energy=False)


class Failing(nn.Module):
    def forward(self, images):
        raise ValueError("no\nway")


class Restless(nn.Module):
    """Gives another answer every time."""

    def forward(self, images):
        return images + torch.rand_like(images)


class Later(nn.Module):
    """Runs out of memory after a while, as with a leak."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, images):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return images * 2


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())


def test_a_row_is_whole_and_plain(nano):
    notes = []
    (row,) = bench([str(nano)], protocol=BRIEF, note=notes.append)
    plain = json.loads(json.dumps(row.to_dict(), allow_nan=False))
    assert (row.imgsz, row.num_classes, row.batch, row.runtime) == (64, 2, 1, "eager")
    assert (row.error, row.correct, row.relative_error) == (None, True, 0.0)
    assert row.flops == 2 * row.macs > 0
    assert plain["stages_ms"].keys() == set(STAGES)
    for name, unit in UNITS.items():
        assert plain[name]["unit"] == unit
        assert (plain[name]["value"] is None) == (plain[name]["reason"] is not None)
    for name in ("latency_ms", "images_per_s", "peak_fraction", "matmul_flops_per_s"):
        spread = [plain[name][key] for key in ("p5", "p50", "p95", "p99")]
        assert plain[name]["value"] > 0
        assert plain[name]["n"] >= 6
        assert all(low <= high for low, high in pairwise(spread))
    stages = row.stages_ms
    parts = sum(stages[name].p5 for name in STAGES if name != "end_to_end")
    assert 0 < parts <= stages["end_to_end"].p99
    assert "energy is not part of this run" in row.joules_per_image.reason
    assert row.conditions.keys() == {"before", "after"}
    assert any(line.startswith("round 2/2") for line in notes)


def test_rates_follow_from_the_samples():
    (row,) = bench_module(small(), imgsz=8, batch=4, protocol=BRIEF)
    flops = 2 * 4 * 64 * 27 * 4
    assert row.flops == flops
    for percentile, opposite in (("p50", "p50"), ("p5", "p95")):
        seconds = getattr(row.latency_ms, percentile) / 1000
        assert getattr(row.images_per_s, opposite) == pytest.approx(4 / seconds, rel=0.2)
    middle = row.achieved_flops_per_s.value
    assert middle == pytest.approx(flops * row.images_per_s.value / 4, rel=1e-6)
    assert row.roofline.intensity_flops_per_byte == pytest.approx(flops / row.bytes_moved)
    assert row.roofline.attainable_flops_per_s <= row.matmul_flops_per_s.value
    assert row.stages_ms is None


def test_a_first_stages_rates_are_its_own():
    whole = replace(BRIEF, memory=True)
    (row,) = bench(["fasterrcnn_lite-vovnet19_slim_dw"], imgsz=64, protocol=whole)
    alone = open_target("fasterrcnn_lite-vovnet19_slim_dw", 64).counts(1, 4, timed=True)
    assert alone.flops < 0.5 * row.flops  # with a thousand regions
    rate = alone.flops * row.images_per_s.value
    assert row.achieved_flops_per_s.value == pytest.approx(rate, rel=1e-6)
    assert row.roofline.intensity_flops_per_byte == pytest.approx(alone.flops / alone.bytes_moved)
    assert row.latency_ms.method.startswith("first stage alone")
    assert "second stage" in row.joules_per_image.reason
    assert "second stage" in row.peak_memory_bytes.reason


def test_a_float32_roof_is_for_float32():
    rows = bench_module(small(), imgsz=8, precisions=("fp32", "bf16"), protocol=BRIEF)
    assert [row.roofline is not None for row in rows] == [True, False]


def test_competitors_take_turns():
    order = []

    class Named(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, images):
            if order[-1:] != [self.name] and not images.is_meta:  # not when counted
                order.append(self.name)
            return images * 1

    own = {name: Target(name, 8, network=Named(name)) for name in "abc"}
    rows = bench_jobs([Job(name) for name in "abc"], BRIEF, own=own)
    assert [row.model for row in rows] == ["a", "b", "c"]
    # Opened and compared, warmed up, and two rounds, of which the second starts one further.
    assert "".join(order) == "abcabcabcbca"


def test_failures_keep_their_rows_and_the_others_go_on():
    own = {
        "failing": Target("failing", 8, network=Failing()),
        "later": Target("later", 8, network=Later(5)),
        "restless": Target("restless", 8, network=Restless()),
        "good": Target("good", 8, network=small()),
    }
    jobs = [Job("nonsuch"), *map(Job, own), Job("good", runtime="ncnn", precision="int8")]
    rows = bench_jobs(jobs, BRIEF, own=own)
    errors = [row.error for row in rows]
    assert "unknown model 'nonsuch'" in errors[0]
    assert errors[1] == "ValueError: no way"
    assert errors[2] == "out of memory; lower --batch or --imgsz"
    assert "ncnn has no int8 on cpu" in errors[5]
    assert errors[3] is None is errors[4]
    for row in (rows[0], rows[1], rows[2], rows[5]):
        assert row.latency_ms.value is None
        assert row.latency_ms.reason == row.error
    assert (rows[3].correct, rows[4].correct) == (False, True)
    assert not rows[3].ranks
    ranked = [row.model for row in rank(rows)]
    assert ranked[:2] == ["good", "restless"]  # a wrong answer comes after, however fast


def test_nothing_works():
    rows = bench_jobs([Job("failing")], BRIEF, own={"failing": Target("f", 8, network=Failing())})
    assert rows[0].error == "ValueError: no way"
    assert rows[0].matmul_flops_per_s.reason == "nothing could be opened"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_here():
    (row,) = bench(["vovnet27_slim"], device="cuda", protocol=BRIEF)
    assert row.error.startswith("device cuda: not usable here")


def test_what_no_row_could_be_made_of():
    with pytest.raises(UnknownNameError, match="Did you mean onnxruntime"):
        bench(["vovnet39"], runtimes=["onnxruntme"])
    with pytest.raises(UnknownNameError, match="unknown precision 'fp8'"):
        bench(["vovnet39"], precisions=["fp8"])
    with pytest.raises(VovnetError, match="--batch 0"):
        bench(["vovnet39"], batch=0)
    for options in ({"seconds": 0}, {"repeats": 0}, {"threads": -1}):
        with pytest.raises(VovnetError, match="must be above 0"):
            Protocol(**options)


def test_the_callers_network_and_threads_stay_as_they_are():
    network, threads = small().train(), torch.get_num_threads()
    bench_module(network, imgsz=8, protocol=Protocol(0.01, 1, 0, 0, 1, memory=False, energy=False))
    assert network.training
    assert torch.get_num_threads() == threads


def test_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shape = [1, 3, 8, 8]
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"
    ]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    path = tmp_path / "relu.onnx"
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    eager, ort = bench([str(path)], runtimes=["eager", "onnxruntime"], protocol=BRIEF)
    assert "eager does not run ONNX files" in eager.error
    assert (ort.error, ort.imgsz, ort.flops) == (None, 8, None)
    assert ort.latency_ms.value > 0
    assert (ort.correct, ort.relative_error) == (None, None)
    assert "could not be counted" in ort.achieved_flops_per_s.reason


@pytest.mark.slow
def test_peak_memory_is_at_least_the_weights():
    weights = 4 * 4096 * 4096
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4096), nn.Linear(4096, 4096))
    found = peak_memory(Target("linear", 8, network=network), 1, "eager", "fp32", "cpu", 1)
    assert found.reason is None
    assert weights <= found.value < 2 * weights
    assert (found.unit, found.n) == ("byte", 3)


@pytest.mark.parametrize("runtime", ["cuda_graph", "onnxruntime", "tensorrt"])
def test_memory_that_torch_does_not_count_is_not_measured_on_a_gpu(runtime):
    found = peak_memory(Target("any", 8, network=small()), 1, runtime, "fp32", "cuda", 1)
    assert (found.value, found.unit) == (None, "byte")
    assert found.reason == f"{runtime} allocates outside torch's counters"


def test_the_child_computes_with_the_jobs_threads(tmp_path):
    before = torch.get_num_threads()
    job = {"side": 8, "batch": 1, "runtime": "eager", "precision": "fp32", "device": "cpu"}
    path = memory._hand_over(small(), 1, 8, "eager", tmp_path / "network")
    try:
        peaks = memory._run(job | {"threads": before + 1}, path, path)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert len(peaks) == 3


@pytest.mark.slow
def test_the_child_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for module in ("tempfile", "json", "ctypes"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('taken from the wrong place')")
    monkeypatch.chdir(tmp_path)
    target = Target("linear", 8, network=nn.Sequential(nn.Flatten(), nn.Linear(192, 8)))
    found = peak_memory(target, 1, "eager", "fp32", "cpu", 1)
    assert (found.value is not None, found.reason) == (True, None)


def test_a_network_without_an_importable_name_has_no_peak_memory():
    class Local(nn.Module):
        pass

    found = peak_memory(Target("local", 8, network=Local()), 1, "eager", "fp32", "cpu", 1)
    assert found.value is None
    assert "cannot be sent to a process" in found.reason


def test_csv_starts_with_timms_columns(tmp_path):
    rows = bench(["nonsuch"], protocol=BRIEF) + bench_module(small(), imgsz=8, protocol=BRIEF)
    write_csv(tmp_path / "rows.csv", rows)
    head, failed, good = (tmp_path / "rows.csv").read_text().splitlines()
    assert head.startswith(
        "model,infer_samples_per_sec,infer_step_time,infer_batch_size,infer_img_size,"
        "infer_gmacs,infer_macts,param_count,"
    )
    assert failed.startswith("nonsuch,,,1,,,,,")
    values = next(csv.DictReader([head, good]))
    assert values["cpu"].endswith("cores)")
    assert values["torch"] == torch.__version__
    assert float(values["infer_samples_per_sec"]) == rows[1].images_per_s.value
    assert values["param_count"] == "0.0001"
    assert values["error"] == ""


def test_one_line():
    assert one_line(VovnetError("a\n b")) == "a b"
    assert one_line(MemoryError()) == "out of memory; lower --batch or --imgsz"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert len(one_line(ValueError("x" * 1000))) == 300
    assert measured([[1.0]], "s", "x").valid is False


def test_asking_for_several_precisions_is_asking_for_what_there_is():
    ways = ["eager", "onnxruntime", "tensorrt"]
    jobs = _jobs(["a", "b"], None, None, 1, "cpu", ways, ["fp32", "int8"])
    asked = [(job.model, job.runtime, job.precision) for job in jobs]
    one = [("eager", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    # One that has none of them fails with the reason.
    one += [("tensorrt", "fp32"), ("tensorrt", "int8")]
    assert asked == [(name, *way) for name in ("a", "b") for way in one]
