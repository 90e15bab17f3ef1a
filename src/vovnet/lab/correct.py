"""Whether a runtime gives the answer that torch eager gives in float32."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

# Largest relative L2 error of all outputs together. Float32 kernels differ by some 1e-6, and a
# bf16 or TF32 result passed off as float32 by more than 1e-3; int8 leaves room for calibration.
BOUNDS = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 0.25}


def compare(
    outputs: Sequence[Tensor], reference: Sequence[Tensor], precision: str
) -> tuple[float | None, bool | None]:
    """‖outputs − reference‖₂ / ‖reference‖₂ over all tensors together, and whether that is within
    the precision's bound.

    (None, False) for other shapes or an answer that is not finite; (None, None) if the reference
    is no yardstick, being zero or not finite itself.
    """
    if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in reference]:
        return None, False
    whole, true = (torch.cat([t.double().cpu().flatten() for t in x]) for x in (outputs, reference))
    length = true.norm()
    if not (length.isfinite() and length > 0):
        return None, None
    error = float((whole - true).norm() / length)
    return (error, error <= BOUNDS[precision]) if isfinite(error) else (None, False)
