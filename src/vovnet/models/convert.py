"""VoVNet weights in three dialects: ours, timm's, and that of the released checkpoints.

The releases (VoVNet.pytorch, maskrcnn-benchmark, detectron2, CenterMask) share one scheme of names
and differ in prefixes only. Two traps, both settled here by the choice of model: the released V1
adds the identity that the paper's V1 has not, and the released V2 gates every module with eSE
where timm gates a stage's last.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vovnet.errors import VovnetError, WeightsError
from vovnet.files import write_atomically
from vovnet.models import create_model, vovnet
from vovnet.models.backbone import Backbone
from vovnet.models.misfit import misfit, not_finite
from vovnet.models.trunks import create_backbone
from vovnet.models.weights import (
    load_metadata,
    load_tensors,
    save_tensors,
    weights_path,
    why_unreadable,
)

Dialect = Literal["ours", "timm", "official"]
Tensors = dict[str, Tensor]

# What detection frameworks and data-parallel wrappers put in front of a backbone's names.
_PREFIXES = ("module.", "model.", "backbone.bottom_up.", "backbone.body.", "bottom_up.", "body.")

_OFFICIAL_TO_TIMM = (
    (r"^stem\.stem_(\d+)/", lambda m: f"stem.{int(m[1]) - 1}."),
    (
        r"^stage(\d+)\.OSA\d+_(\d+)\.",
        lambda m: f"stages.{int(m[1]) - 2}.blocks.{int(m[2]) - 1}.",
    ),
    (r"\.layers\.(\d+)\.OSA\d+_\d+_\d+/", lambda m: f".conv_mid.{m[1]}."),
    (r"\.concat\.OSA\d+_\d+_concat/", lambda m: ".conv_concat."),
    (r"\.conv_reduction\.OSA\d+_\d+_reduction_0/", lambda m: ".conv_reduction."),
    (r"\.ese\.fc\.", lambda m: ".attn.fc."),
    (r"\.dw_conv3x3\.", lambda m: ".conv_dw."),
    (r"\.pw_conv1x1\.", lambda m: ".conv_pw."),
    (r"\.(?:pw_)?norm\.", lambda m: ".bn."),
    (r"^classifier\.", lambda m: "head.fc."),
)


class Converted(NamedTuple):
    """What a conversion did: from which dialect, for which model, with which settings."""

    source: Dialect
    model: str
    settings: dict[str, Any]  # keywords of `create_model` that make the source's network
    num_classes: int  # 0: no classifier in the file
    tensors: int


def convert(
    source: Path,
    destination: Path,
    to: Dialect = "ours",
    facts: Mapping[str, Any] | None = None,
) -> Converted:
    """Read weights in any dialect, find their model, write them as safetensors in dialect `to`;
    `facts` join the metadata of ours.

    Raises `WeightsError` if the file cannot be read, or fits no VoVNet.
    """
    tensors = read_tensors(source)
    if fault := not_finite(tensors):
        raise WeightsError(f"{source}: {fault}")
    dialect, timm = to_timm(tensors)
    told = _told_by_metadata(source) if dialect != "official" else None
    if told is not None:
        dialect, (model, settings, num_classes) = "ours", told
    else:
        model, settings, num_classes = identify(timm, dialect, str(source))
    # Frozen norms are saved without their step counter.
    counters = {k: torch.zeros((), dtype=torch.int64) for k in _shapes(model) if _is_counter(k)}
    timm = counters | timm
    result = Converted(dialect, model, settings, num_classes, len(timm))
    if to == "ours":
        metadata = {"model": model, "settings": settings, "num_classes": num_classes}
        save_tensors(
            destination, from_timm_to_ours(timm, num_classes), metadata | dict(facts or {})
        )
    else:
        names = timm if to == "timm" else from_timm_to_official(timm)
        write_atomically(destination, save({k: v.contiguous() for k, v in names.items()}))
    return result


def load_backbone(name_or_path: str | Path) -> Backbone:
    """The backbone of a name that was fetched, or of a file that `convert` wrote for us; a
    classifier's last layer is left out.

    Raises `WeightsError` if the file cannot be read, or does not fit the model that it names.
    """
    path = weights_path(name_or_path)
    tensors, facts = load_tensors(path)
    try:
        backbone = create_backbone(facts["model"], **facts["settings"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, VovnetError) as error:
        raise WeightsError(f"{path}: its metadata makes no backbone ({error})") from None
    given = {
        key.removeprefix("backbone."): value
        for key, value in tensors.items()
        if not key.startswith("head.")
    }
    shapes = ({k: v.shape for k, v in named.items()} for named in (backbone.state_dict(), given))
    if fault := misfit(*shapes) or not_finite(given):
        raise WeightsError(f"{path}: {fault}")
    backbone.load_state_dict(given)
    return backbone


def _told_by_metadata(path: Path) -> tuple[str, dict[str, Any], int] | None:
    """Model, settings and classes as an earlier conversion wrote them, if the file is one of ours.

    They tell apart what no tensor does: the stem and the identity.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        facts = load_metadata(path)
        return facts["model"], facts["settings"], facts["num_classes"]
    except (WeightsError, KeyError):
        return None


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def read_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of a .pth that holds nothing but tensors.

    A .pth goes through torch's restricted loader, which runs no code of the file.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: no such weights file; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path}: {why_unreadable(path, error)}") from None
    except Exception as error:  # on what is no checkpoint the unpickler raises anything
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: cannot be read as weights ({reason})") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds no named tensors")
    return {k: v for k, v in content.items() if isinstance(v, Tensor)}


def to_timm(tensors: Mapping[str, Tensor]) -> tuple[Dialect, Tensors]:
    """The dialect of some tensors' names, and the tensors under timm's; others are left out."""
    if any(key.startswith("backbone.stages.") for key in tensors):
        mine = {k: v for k, v in tensors.items() if k.startswith(("backbone.", "head."))}
        renamed = {k.removeprefix("backbone."): v for k, v in mine.items()}
        return "ours", {re.sub(r"^head\.", "head.fc.", k): v for k, v in renamed.items()}
    bare = {_without_prefix(k): v for k, v in tensors.items()}
    if not any("/" in key for key in bare):
        return "timm", bare
    mine = {k: v for k, v in bare.items() if re.match(r"stem\.|stage\d|classifier\.", k)}
    return "official", {_official_to_timm(k): v for k, v in mine.items()}


def _without_prefix(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _official_to_timm(key: str) -> str:
    for pattern, name in _OFFICIAL_TO_TIMM:
        key = re.sub(pattern, name, key)
    return key


def from_timm_to_ours(tensors: Mapping[str, Tensor], num_classes: int) -> Tensors:
    """timm's names to those of `Classifier`, or of a bare `VoVNet` when there are no classes."""
    prefix = "backbone." if num_classes else ""
    return {
        k.replace("head.fc.", "head.") if k.startswith("head.fc.") else prefix + k: v
        for k, v in tensors.items()
    }


def from_timm_to_official(tensors: Mapping[str, Tensor]) -> Tensors:
    """timm's names to the released checkpoints'."""
    return {_timm_to_official(k, tensors): v for k, v in tensors.items()}


def _timm_to_official(key: str, tensors: Mapping[str, Tensor]) -> str:
    layer = key.rpartition(".")[0].rpartition(".")[0]
    separable = f"{layer}.conv_dw.weight" in tensors
    key = key.replace(".bn.", ".pw_norm." if separable else ".norm.")
    key = key.replace(".conv_dw.", ".dw_conv3x3.").replace(".conv_pw.", ".pw_conv1x1.")
    key = key.replace("head.fc.", "classifier.").replace(".attn.fc.", ".ese.fc.")
    key = re.sub(r"^stem\.(\d+)\.", lambda m: f"stem.stem_{int(m[1]) + 1}/", key)
    found = re.match(r"stages\.(\d+)\.blocks\.(\d+)\.(.*)", key)
    if not found:
        return key
    osa = f"OSA{int(found[1]) + 2}_{int(found[2]) + 1}"
    rest = re.sub(r"^conv_mid\.(\d+)\.", rf"layers.\1.{osa}_\1/", found[3])
    rest = re.sub(r"^conv_concat\.", f"concat.{osa}_concat/", rest)
    rest = re.sub(r"^conv_reduction\.", f"conv_reduction.{osa}_reduction_0/", rest)
    return f"stage{int(found[1]) + 2}.{osa}.{rest}"


def identify(
    tensors: Mapping[str, Tensor], dialect: Dialect, source: str
) -> tuple[str, dict[str, Any], int]:
    """The model that timm-named tensors belong to, its settings, and the number of classes.

    Networks of equal weights differ in stem and identity, which no tensor tells: the dialect
    decides. Raises `WeightsError` with the nearest model's missing and extra tensors.
    """
    head = tensors.get("head.fc.weight")
    num_classes = 0 if head is None else len(head)
    body = {k: v.shape for k, v in tensors.items() if not k.startswith("head.")}
    nearest: tuple[int, str, str] | None = None
    for name in _candidates(dialect):
        own = _shapes(name)
        # A step counter is a scalar that is easily made.
        counters = {key: torch.Size(()) for key in own if _is_counter(key)}
        given = counters | body
        fault = misfit(own, given)
        if fault is None:
            released_v1 = dialect == "official" and vovnet.SPECS[name].stem == "pooled"
            settings = {"stem": "strided", "identity": True} if released_v1 else {}
            return name, settings, num_classes
        wrong = sum(own.get(key) != given.get(key) for key in own.keys() | given.keys())
        if nearest is None or wrong < nearest[0]:
            nearest = (wrong, name, fault)
    if nearest is None:
        raise WeightsError(f"{source}: no model to compare with")
    raise WeightsError(f"{source}: fits no VoVNet; nearest is {nearest[1]}: {nearest[2]}")


def _candidates(dialect: Dialect) -> list[str]:
    timm_names = [n for n in vovnet.SPECS if n.startswith("ese_") or n.endswith("a")]
    others = [n for n in vovnet.SPECS if n not in timm_names]
    return [*timm_names, *others] if dialect == "timm" else [*others, *timm_names]


def _shapes(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        backbone = create_model(name, 0)
    return {k: v.shape for k, v in backbone.state_dict().items()}
