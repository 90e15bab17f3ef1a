"""Counts of named models, as `vovnet count` prints them."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from vovnet.errors import VovnetError
from vovnet.lab.count import Counts, LayerCount, count
from vovnet.lab.count_onnx import FileCounts, count_onnx
from vovnet.lab.target import Target, is_weights, open_target
from vovnet.shipped import is_model_file

# Bytes of one number.
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


def count_models(
    names: Iterable[str],
    imgsz: int | None = None,
    *,
    num_classes: int | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    batch: int = 1,
    dtype: Literal["fp32", "bf16", "fp16", "int8"] = "fp32",
    layers: bool = False,
) -> list[dict[str, Any]]:
    """One row per model, for `batch` images of imgsz×imgsz pixels (default: the model's own).

    Names are what `open_target` takes; weights are `fused`, their batch norms folded as `vovnet
    predict` runs them. `bytes_moved` is for numbers of `dtype`; `layers` adds the convolutions one
    by one. Of an ONNX file `bytes_by_operator` is told too. Raises `VovnetError` if a model cannot
    be built, or cannot take images of that size.
    """
    if (imgsz is not None and imgsz < 1) or batch < 1:
        raise VovnetError(f"--imgsz {imgsz} --batch {batch}: both must be at least 1")
    rows = []
    for name in names:
        counts: Counts | FileCounts
        if is_model_file(name):
            counts, facts = _count_file(name, imgsz, (num_classes, stem), batch, BYTES[dtype])
        else:
            target = _without_numbers(name, num_classes, stem)
            side = imgsz or target.imgsz
            counts = _count(target, side, batch, BYTES[dtype])
            facts = {"imgsz": side, "num_classes": target.num_classes, "fused": is_weights(name)}
        row: dict[str, Any] = {
            "model": name,
            **facts,
            "params": counts.params,
            "macs": counts.macs,
            "flops": counts.flops,
            "memory_access": counts.memory_access,
            "bytes_moved": counts.bytes_moved,
            "activations": counts.activations,
            "uncounted_ops": list(counts.uncounted_ops),
        }
        if isinstance(counts, FileCounts):
            row["bytes_by_operator"] = counts.by_operator
        if layers:
            row["layers"] = [asdict(layer) for layer in counts.layers]
        rows.append(row)
    return rows


def _count_file(
    name: str, imgsz: int | None, built: tuple[object, ...], batch: int, bytes_per_element: int
) -> tuple[FileCounts, dict[str, Any]]:
    """The counts of an ONNX file, and what its row tells beside them."""
    if any(value is not None for value in built):
        raise VovnetError(f"{name}: is ready made; leave out --num-classes and --stem")
    if not name.endswith(".onnx"):
        raise VovnetError(f"{name}: is counted by its ONNX file; give the one it was made from")
    counts = count_onnx(Path(name), imgsz, batch=batch, bytes_per_element=bytes_per_element)
    return counts, {"imgsz": counts.side, "num_classes": None, "fused": counts.folded}


def layers_of(
    names: Sequence[str], imgsz: int | None, num_classes: int | None, batch: int
) -> dict[str, tuple[LayerCount, ...]]:
    """The convolutions of every model that can be counted, by name."""
    layers = {}
    for name in dict.fromkeys(names):
        try:
            target = _without_numbers(name, num_classes, None)
            layers[name] = _count(target, imgsz or target.imgsz, batch, 4).layers
        except VovnetError:  # an ONNX file, or a model that could not be measured either
            continue
    return layers


def _without_numbers(
    name: str, num_classes: int | None, stem: Literal["pooled", "strided"] | None
) -> Target:
    """Shapes are all that is counted: initialising a hundred million numbers takes a while."""
    with nullcontext() if is_weights(name) else torch.device("meta"):
        return open_target(name, num_classes=num_classes, stem=stem)


def _count(target: Target, side: int, batch: int, bytes_per_element: int) -> Counts:
    network = target.countable
    if network is None:
        raise VovnetError(f"{target.name}: holds no network of torch; give vovnet count the file")
    try:
        return count(network, (side, side), batch=batch, bytes_per_element=bytes_per_element)
    except Exception as error:  # a stranger's network may raise anything
        reason = " ".join(str(error).split())
        raise VovnetError(f"{target.name}: cannot take {side} pixels: {reason}") from None
