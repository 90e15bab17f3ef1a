"""Counts of named models, as `vovnet count` prints them."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from vovnet.errors import VovnetError
from vovnet.lab.count import count
from vovnet.models import create_model, default_num_classes
from vovnet.models.cifar import CifarNet
from vovnet.models.detector import Detector


def count_models(
    names: Iterable[str],
    imgsz: int | None = None,
    *,
    num_classes: int | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    batch: int = 1,
) -> list[dict[str, Any]]:
    """One row per model, for `batch` images of imgsz×imgsz pixels (default: the model's own).

    Raises `VovnetError` if a model cannot be built, or cannot take images of that size.
    """
    if (imgsz is not None and imgsz < 1) or batch < 1:
        raise VovnetError(f"--imgsz {imgsz} --batch {batch}: both must be at least 1")
    rows = []
    for name in names:
        # Shapes are all that is counted: initialising a hundred million numbers takes a while.
        with torch.device("meta"):
            model = create_model(name, num_classes, stem=stem)
        side = imgsz or _own_side(model)
        try:
            counts = count(model, (side, side), batch=batch)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise VovnetError(f"{name}: cannot take {side} pixels: {reason}") from None
        row = {
            "model": name,
            "imgsz": side,
            "num_classes": default_num_classes(name) if num_classes is None else num_classes,
            "params": counts.params,
            "macs": counts.macs,
            "flops": counts.flops,
            "memory_access": counts.memory_access,
            "bytes_moved": counts.bytes_moved,
            "activations": counts.activations,
            "uncounted_ops": list(counts.uncounted_ops),
        }
        rows.append(row)
    return rows


def _own_side(model: nn.Module) -> int:
    if isinstance(model, Detector):
        return model.input_spec.size[0]
    return 32 if isinstance(model, CifarNet) else 224
