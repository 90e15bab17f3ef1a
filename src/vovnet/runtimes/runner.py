"""A network made ready to run somewhere: what every runtime gives back, and what each is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vovnet.errors import VovnetError

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Settings:
    """How to run: `calibration` holds prepared images, each N×3×H×W, and is read for int8 only."""

    precision: Precision
    device: torch.device
    threads: int
    calibration: Sequence[Tensor] = ()

    def calibration_batches(self, shape: Sequence[int]) -> list[Tensor]:
        """The calibration images in batches of exactly `shape`; the last is filled up from the
        first images. Raises `VovnetError` if there are none or they have another size."""
        if not self.calibration:
            raise VovnetError("int8 needs calibration images; give a few dozen prepared ones")
        sizes = {tuple(images.shape[1:]) for images in self.calibration}
        if sizes != {tuple(shape[1:])}:
            found = ", ".join("×".join(map(str, size)) for size in sorted(sizes))
            wanted = "×".join(map(str, shape[1:]))
            raise VovnetError(f"calibration images are {found}; the network runs on {wanted}")
        images = torch.cat([images.detach().cpu().float() for images in self.calibration])
        batches = -(-len(images) // shape[0])
        filled = torch.arange(batches * shape[0]) % len(images)
        return list(images[filled].split(shape[0]))


class Runner:
    """Runs a converted network on images of one shape: N×3×H×W float32 in, float32 tensors out.

    `runtime`, `precision` (what it really computes in), `version` (of the runtime's package),
    `device` and `shape` say what it is. The outputs are the network's tensors in the order of
    its output structure, on `device`. `close` frees what it holds; use it as a context manager.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], list[Tensor]],
        *,
        runtime: str,
        precision: Precision,
        version: str,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self._compute: Callable[[Tensor], list[Tensor]] | None = compute
        self.runtime = runtime
        self.precision = precision
        self.version = version
        self.shape = tuple(shape)
        self.device = device

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Raises `VovnetError` for another shape than `self.shape` and after `close`."""
        if self._compute is None:
            raise VovnetError(f"this {self.runtime} runner is closed; open another")
        if tuple(images.shape) != self.shape:
            given, wanted = ("×".join(map(str, s)) for s in (images.shape, self.shape))
            raise VovnetError(f"{self.runtime} was opened for images {wanted}, not {given}")
        with torch.inference_mode():
            return self._compute(images.to(self.device, torch.float32))

    def close(self) -> None:
        """Let go of weights, threads and device memory. May be called again."""
        self._compute = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
