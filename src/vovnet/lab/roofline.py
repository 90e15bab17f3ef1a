"""The machine's own roofs, measured beside every competitor: a matrix product and a memory copy."""

import torch

from vovnet.lab.latency import LEAST_CALLS, Call, settle, time_calls
from vovnet.lab.row import Roofline

_COPIED_BYTES = 1 << 27  # beyond the caches
# A GPU is done with the smaller product before it is launched.
_SIDES = {"cpu": 1536, "cuda": 8192}


class Roofs:
    """The float32 matrix product and the memory copy of one device.

    1536³ on a CPU and 8192³ on a GPU, without TF32, as float32 is meant. `matmul` and `copy`
    describe the two.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        side = _SIDES[device.type]
        generator = torch.Generator(device).manual_seed(0)
        self._a, self._b = torch.randn(2, side, side, generator=generator, device=device)
        self._product = torch.empty_like(self._a)
        self._source = torch.ones(_COPIED_BYTES // 4, device=device)
        self._copy = torch.zeros_like(self._source)
        self.matmul = f"float32 matrix product {side}³"
        self.copy = f"copy of {_COPIED_BYTES >> 20} MiB, read and written bytes"

    def sample(self) -> tuple[list[float], list[float]]:
        """FLOP/s of a few matrix products, and bytes/s of a few copies."""
        product = self._time(self._multiply)
        flops = 2 * self._a.shape[0] ** 3
        moved = 2 * _COPIED_BYTES
        return [flops / s for s in product], [moved / s for s in self._time(self._move)]

    def _time(self, call: Call) -> list[float]:
        guess = settle(call, 0, self.device)
        return time_calls(call, LEAST_CALLS * guess, self.device, guess)

    def _multiply(self) -> None:
        torch.mm(self._a, self._b, out=self._product)

    def _move(self) -> None:
        self._copy.copy_(self._source)


def place(flops: int, bytes_moved: int, matmul: float, copy: float) -> Roofline:
    """Where flops that move so many bytes lie, under the rates of matrix product and copy."""
    intensity = flops / bytes_moved
    slope = intensity * copy
    return Roofline(intensity, min(matmul, slope), "memory" if slope < matmul else "compute")
