"""One model in one runtime and precision: opened, compared, and its samples."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from vovnet.lab.correct import compare
from vovnet.lab.energy import Energy, Meter
from vovnet.lab.latency import settle, time_calls
from vovnet.lab.stages import EndToEnd
from vovnet.lab.target import Target, random_images
from vovnet.load import file_readers
from vovnet.runtimes import RUNTIMES, Precision, Runner, open_onnx, open_runtime, write_onnx

_CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Job:
    """What one row of `vovnet bench` is asked to be; None is the model's own."""

    model: str
    imgsz: int | None = None
    num_classes: int | None = None
    batch: int = 1
    device: str = "cpu"
    runtime: str = "eager"
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Loaded:
    """A target, the images it is measured on, and torch eager's answer to them.

    `reference` and `structure` are None for an ONNX file, which torch cannot run.
    """

    target: Target
    images: Tensor
    reference: list[Tensor] | None = None
    structure: TreeSpec | None = None

    @cached_property
    def exported(self) -> "Exported":
        """The network as ONNX, written when it is first asked for."""
        assert self.target.network is not None
        return Exported(self.target.network, self.images)


class Exported:
    """An ONNX file that all runtimes read, for exporting takes most of the time of opening; its
    folder goes with the object."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        folder = tempfile.mkdtemp(prefix="vovnet-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "network.onnx"
        write_onnx(network, images.cpu(), self.path)


@dataclass
class Samples:
    """What the rounds gave, one item a round."""

    seconds: list[list[float]] = field(default_factory=list)  # of every call
    stages: list[list[tuple[float, ...]]] = field(default_factory=list)
    energy: list[Energy] = field(default_factory=list)
    matmul: list[list[float]] = field(default_factory=list)  # FLOP/s just before


class Competitor:
    """A runner that takes its turn in every round; `samples` fill up.

    Opening raises what `open_runtime` raises; `error` and `correct` compare its answer with
    torch eager's.
    """

    def __init__(self, job: Job, loaded: Loaded, threads: int, *, stages: bool) -> None:
        self.job, self.target = job, loaded.target
        self.samples = Samples()
        self.runner = _open(job, loaded, threads)
        self._call: Callable[[], object] = partial(self.runner, loaded.images)
        outputs = self.runner(loaded.images)
        self.error, self.correct = None, None
        if loaded.reference is not None:
            self.error, self.correct = compare(outputs, loaded.reference, self.runner.precision)
        self.end_to_end = None
        if stages and self.target.detector is not None and loaded.structure is not None:
            self.end_to_end = EndToEnd(
                self.target.detector, self.runner, loaded.structure, job.batch
            )
        elif stages and self.target.foreign is not None and job.runtime in file_readers(job.model):
            self.end_to_end = EndToEnd(self.target.foreign, self.runner, None, job.batch)
        if self.end_to_end is not None:
            self.end_to_end.run()

    def warm_up(self, seconds: float) -> None:
        """Run without being measured."""
        settle(self._call, seconds, self.runner.device)

    def take_turn(self, seconds: float, settling: float, meter: Meter | None) -> None:
        """One window of the network, with its energy, then one of the way from JPEG to boxes."""
        device = self.runner.device
        guess = settle(self._call, settling, device)
        if meter is not None:
            seconds = max(seconds, meter.least_seconds)
            meter.begin()
        self.samples.seconds.append(time_calls(self._call, seconds, device, guess))
        if meter is not None:
            self.samples.energy.append(meter.end())
        if self.end_to_end is not None:
            self.samples.stages.append(self.end_to_end.window(seconds / 2))


def _open(job: Job, loaded: Loaded, threads: int) -> Runner:
    target = loaded.target
    calibration: Sequence[Tensor] = ()
    if job.precision == "int8":  # noise: enough for speed, no word on accuracy
        host = torch.device("cpu")
        calibration = [
            random_images(job.batch, target.imgsz, host, seed)
            for seed in range(_CALIBRATION_BATCHES)
        ]
    how = RUNTIMES[job.runtime]
    file = target.onnx
    if file is None and how.from_onnx is not None:
        file = loaded.exported.path
    if file is not None:
        return open_onnx(
            file,
            job.runtime,
            job.precision,
            batch=job.batch,
            image_size=(target.imgsz, target.imgsz),
            device=job.device,
            threads=threads,
            calibration=calibration,
        )
    assert target.network is not None
    return open_runtime(
        target.network,
        loaded.images,
        job.runtime,
        job.precision,
        device=job.device,
        threads=threads,
        calibration=calibration,
    )


def same_but_runtime(job: Job) -> tuple[object, ...]:
    """What two jobs share if they can share one `Loaded`."""
    return tuple(v for k, v in asdict(job).items() if k not in ("runtime", "precision"))
