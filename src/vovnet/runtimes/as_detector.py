"""A torch detector with its network in another runtime."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vovnet.detect.pictures import to_pictures
from vovnet.device import usable_device
from vovnet.models.detector import Detector
from vovnet.runtimes import open_runtime
from vovnet.runtimes.runner import Precision, Runner


class RunnerNetwork(nn.Module):
    """A runner in a network's place: the same outputs, for any number of images.

    What is no part of the network's forward, a second stage, stays in torch.
    """

    def __init__(self, network: nn.Module, runner: Runner, structure: Any) -> None:
        super().__init__()
        self.inside = network
        self._runner, self._structure = runner, structure
        self.decode = getattr(network, "decode", None)

    def forward(self, images: Tensor) -> Any:
        """Images N×3×H×W in batches of the runner's size; the last is filled up."""
        size = self._runner.shape[0]
        filled = torch.arange(-(-len(images) // size) * size).clamp(max=len(images) - 1)
        parts = [self._runner(part) for part in images[filled].split(size)]
        flat = [torch.cat(column)[: len(images)] for column in zip(*parts, strict=True)]
        return tree_unflatten(flat, self._structure)


@torch.inference_mode()
def open_detector(
    detector: Detector,
    runtime: str,
    precision: str = "fp32",
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch: int = 1,
    calibration: Sequence[Any] = (),
) -> Detector:
    """The same detector, its network computed by a runtime in batches of `batch`.

    `calibration` holds pictures, as `detect` takes them, for int8. Raises what `open_runtime`
    raises.
    """
    example = torch.zeros(batch, 3, *detector.input_spec.size)
    where = usable_device(device)
    outputs = detector.network(example.to(where))
    runner = open_runtime(
        detector.network,
        example,
        runtime,
        cast(Precision, precision),
        device=device,
        threads=threads,
        calibration=prepared(detector, calibration) if precision == "int8" else (),
    )
    network = RunnerNetwork(detector.network, runner, tree_flatten(outputs)[1])
    other = detector.around(network).eval()
    other.metadata = detector.metadata
    other.runtime, other.precision = runtime, precision
    return other


def prepared(detector: Detector, pictures: Sequence[Any]) -> list[Tensor]:
    """Pictures as the network's inputs, 1×3×H×W each."""
    spec = detector.input_spec
    seen, _ = to_pictures(list(pictures), shrink_to=max(spec.size))
    pixels = (spec.prepare(picture.image, picture.size)[0] for picture in seen)
    return [torch.from_numpy(spec.normalize(one[None])) for one in pixels]
