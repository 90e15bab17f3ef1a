"""The formats of `vovnet export`: what each writes into its folder."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vovnet.deploy.two_stage import write_end_to_end as write_both_stages
from vovnet.detect.engine import import_tensorrt
from vovnet.detect.sessions import openvino_core
from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError
from vovnet.models.detector import Detector
from vovnet.runtimes.convert import converting
from vovnet.runtimes.end_to_end import join, write_network
from vovnet.runtimes.on_ncnn import write_ncnn
from vovnet.runtimes.on_onnxruntime import Reader, quantize
from vovnet.runtimes.on_openvino import quantize as quantize_openvino
from vovnet.runtimes.on_tensorrt import build_engine


@dataclass(frozen=True)
class Order:
    """What is to be written: `batch` None leaves it open, `raw` leaves out the suppression.

    `pixels` are prepared pictures N×H×W×3 uint8 for int8; the convolutions of these numbers, in
    the order in which they are computed, `keep` floating point.
    """

    precision: str = "fp32"
    batch: int | None = 1
    raw: bool = False
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    keep: tuple[int, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format: what runs it, in which precisions, and the function that writes it.

    `write` takes detector, folder, order, and a place for files on the way, which several tries
    share; it returns the names of the files in the folder, the one to open first.
    `end_to_end` tells whether the suppression can be inside, `pixels` whether the normalisation is,
    `runs_here` whether the gate can run it.
    """

    runtime: str
    precisions: tuple[str, ...]
    write: Callable[[Detector, Path, Order, Path], list[str]]
    end_to_end: bool = False
    pixels: bool = True
    any_batch: bool = True
    runs_here: bool = True


class DenseNetwork(nn.Module):
    """Pixels, or with `pixels` off normalised images, to all boxes N×A×4 and scores N×A×C."""

    def __init__(self, detector: Detector, *, pixels: bool) -> None:
        super().__init__()
        self.network = detector.network
        self.dense = detector.decoder.dense  # pyrefly: ignore[missing-attribute]
        self.size = detector.input_spec.size
        self.pixels = pixels
        self.register_buffer("mean", torch.tensor(detector.input_spec.mean))
        self.register_buffer("std", torch.tensor(detector.input_spec.std))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images N×H×W×3 uint8, or normalised N×3×H×W."""
        if self.pixels:
            images = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.dense(self.network(images), self.size)


def _write_onnx(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    if detector.decoder is None:
        write_both_stages(detector, folder / "model.onnx", {"precision": order.precision})
        return ["model.onnx"]
    network = _network(detector, order, place)
    if order.precision == "int8":
        reader = Reader("images", calibration_batches(detector, order))
        network = quantize(network, place, reader, _kept(network, order))
    facts = {"precision": order.precision}
    path = folder / "model.onnx"
    join(detector, network, path, batch=order.batch, raw=order.raw, facts=facts)
    return ["model.onnx"]


def _network(detector: Detector, order: Order, place: Path) -> Path:
    """The network's ONNX file, written by the first try."""
    path = place / "network.onnx"
    if not path.exists():
        write_network(detector, path, order.batch)
    return path


def _dense(detector: Detector, order: Order, place: Path) -> Path:
    """The ONNX file from pixels to all boxes and scores, written by the first try."""
    path = place / "dense.onnx"
    if not path.exists():
        network = _network(detector, order, place)
        join(detector, network, path, batch=order.batch, raw=True)
    return path


def calibration_batches(detector: Detector, order: Order) -> list[Tensor]:
    """The order's pictures as the network's inputs, in batches of its size; the last is full."""
    size = order.batch or 1
    images = detector.input_spec.normalize(order.pixels)
    whole = len(images) - len(images) % size
    return list(torch.from_numpy(images[:whole]).split(size)) if whole else []


def _kept(network: Path, order: Order) -> list[str]:
    """The names of the convolutions that an order keeps in floating point."""
    import onnx

    nodes = onnx.load_model(network, load_external_data=False).graph.node
    names = [node.name for node in nodes if node.op_type == "Conv"]
    return [names[number] for number in order.keep]


def _write_openvino(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    core = openvino_core()
    import openvino

    dense = _dense(detector, order, place)
    with converting("OpenVINO"):
        model = core.read_model(dense)
        if order.precision == "int8":
            size = order.batch or 1
            rows = [order.pixels[i : i + size] for i in range(0, len(order.pixels), size)]
            rows = [row for row in rows if len(row) == size]
            # OpenVINO renames a convolution whose bias becomes an addition.
            names = [f"network/{name}" for name in _kept(_network(detector, order, place), order)]
            keep = [*names, *(f"{name}/WithoutBiases" for name in names)]
            model = quantize_openvino(model, rows, keep, skip=("decode/.*",))
        half = order.precision in ("fp16", "bf16")
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=half)
    return ["model.xml", "model.bin"]


def _write_tensorrt(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    if order.batch is None:
        raise VovnetError("--batch dynamic: an engine has a size of batch; give --batch N")
    import_tensorrt()  # before minutes of work
    dense = _dense(detector, order, place)
    with converting("TensorRT"):
        plan = build_engine(dense, (order.batch, *detector.input_spec.size, 3), order.precision)
    (folder / "model.engine").write_bytes(plan)
    return ["model.engine"]


def _write_ncnn(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    network, example = _one_image(detector)
    names = ["model.ncnn.param", "model.ncnn.bin"]
    for written, name in zip(write_ncnn(network, example, place), names, strict=True):
        (folder / name).write_bytes(written.read_bytes())
    return names


def _write_torch(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    network = DenseNetwork(detector, pixels=True).eval()
    example = torch.zeros(order.batch or 2, *detector.input_spec.size, 3, dtype=torch.uint8)
    free = {0: torch.export.Dim("batch", min=1, max=1024)} if order.batch is None else None
    with converting("torch.export"), torch.no_grad():
        network(example)
        program = torch.export.export(network, (example,), dynamic_shapes=(free,) if free else None)
        torch.export.save(program, folder / "model.pt2")
    return ["model.pt2"]


def _write_litert(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    try:
        import litert_torch  # pyrefly: ignore[missing-import]
    except ImportError:
        raise MissingExtraError("litert-torch", "litert") from None
    network, example = _one_image(detector)
    with converting("LiteRT"):
        litert_torch.convert(network, (example,)).export(str(folder / "model.tflite"))
    return ["model.tflite"]


def _write_coreml(detector: Detector, folder: Path, order: Order, place: Path) -> list[str]:
    """A program for Core ML, packed into one file: it is a folder with files of its own."""
    try:
        import coremltools  # pyrefly: ignore[missing-import]
    except ImportError:
        raise MissingExtraError("coremltools", "coreml") from None
    network, example = _one_image(detector)
    with converting("Core ML"), torch.no_grad():
        program = torch.export.export(network, (example,)).run_decompositions({})
        model = coremltools.convert(
            program,
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,
        )
        model.save(str(place / "model.mlpackage"))
    shutil.make_archive(str(folder / "model.mlpackage"), "zip", place, "model.mlpackage")
    return ["model.mlpackage.zip"]


def _one_image(detector: Detector) -> tuple[DenseNetwork, Tensor]:
    """A network of one normalised image, and such an image."""
    network = DenseNetwork(detector, pixels=False).eval().to(memory_format=torch.contiguous_format)
    example = torch.zeros(1, 3, *detector.input_spec.size)
    with torch.no_grad():
        network(example)  # what it keeps for later is made now, and not while it is traced
    return network, example


FORMATS: dict[str, Format] = {
    "onnx": Format("onnxruntime", ("fp32", "int8"), _write_onnx, end_to_end=True),
    "openvino": Format("openvino", ("fp32", "bf16", "fp16", "int8"), _write_openvino),
    "ncnn": Format("ncnn", ("fp32", "bf16"), _write_ncnn, pixels=False, any_batch=False),
    "tensorrt": Format("tensorrt", ("fp32", "fp16"), _write_tensorrt),
    "torch": Format("eager", ("fp32",), _write_torch),
    "litert": Format("litert", ("fp32",), _write_litert, pixels=False, any_batch=False),
    "coreml": Format(
        "coreml", ("fp32",), _write_coreml, pixels=False, any_batch=False, runs_here=False
    ),
}


def find_format(name: str, order: Order, *, two_stages: bool = False) -> Format:
    """The format of that name; raises `VovnetError` for what it cannot hold."""
    if two_stages and (
        name != "onnx" or (order.precision, order.batch, order.raw) != ("fp32", 1, False)
    ):
        raise VovnetError(
            "a detector of two stages becomes ONNX in fp32 for one image, with suppression; "
            "give --format onnx alone, or use --runtime, which leaves the second stage in torch"
        )
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    chosen = FORMATS[name]
    if order.precision not in chosen.precisions:
        able = ", ".join(chosen.precisions)
        raise VovnetError(f"--precision {order.precision}: {name} has {able}")
    if order.batch != 1 and not chosen.any_batch:
        raise VovnetError(f"--batch: {name} runs one image at a time; leave it out")
    return chosen


def picture_pixels(detector: Detector, pictures: Sequence[Any]) -> np.ndarray:
    """Pictures, as `detect` takes them, prepared: N×H×W×3 uint8; raises `VovnetError` for none."""
    if not pictures:
        raise VovnetError("int8 needs pictures to calibrate on; give --data, or --calibration")
    from vovnet.detect.pictures import to_pictures

    spec = detector.input_spec
    seen, _ = to_pictures(list(pictures), shrink_to=max(spec.size))
    return np.stack([spec.prepare(picture.image, picture.size)[0] for picture in seen])
