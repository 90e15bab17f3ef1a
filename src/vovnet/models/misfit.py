"""Why a file's tensors do not fit a network: which ones, and the likely cause."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# What puts its own word before every name that it saves.
_WRAPPERS = {
    "module.": "a data-parallel or averaging wrapper",
    "_orig_mod.": "torch.compile",
    "model.": "a training framework",
    "network.": "a detector as a whole",
    "ema.": "averaged weights",
    "average.": "averaged weights",
    "model_ema.": "averaged weights",
    "state_dict.": "a checkpoint as a whole",
}
_HOLDERS = ("backbone.", "network.", "backbone.body.")  # of what is saved without the rest
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
_LISTED = 10  # names in a message


def misfit(own: Mapping[str, torch.Size], given: Mapping[str, torch.Size]) -> str | None:
    """What keeps `given` tensors from a network whose own are `own` (names to shapes), in one line
    with the likely cause; None if all fit."""
    missing = sorted(own.keys() - given.keys())
    extra = sorted(given.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & given.keys() if own[k] != given[k])
    kinds = (("missing", missing), ("extra", extra), ("of another shape", reshaped))
    faults = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys]
    if not faults:
        return None
    cause = (
        _prefix(own, given)
        or _squeeze_excite(missing, extra, reshaped)
        or _norms(missing, extra, reshaped)
        or _classes(own, given, missing, extra, reshaped)
        or "they are another model's"
    )
    return f"tensors {'; '.join(faults)}; likely cause: {cause}"


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Which tensors hold NaN or infinities, in one line; None if none does."""
    bad = sorted(k for k, v in tensors.items() if v.is_floating_point() and not _finite(v))
    if not bad:
        return None
    return f"{len(bad)} tensors hold NaN or infinity ({_first(bad)}); the training diverged"


def _finite(tensor: Tensor) -> bool:
    # A sum is finite only if all terms are, but for overflow: look closer only then.
    return bool(tensor.float().sum().isfinite() or tensor.isfinite().all())


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")


def _prefix(own: Mapping[str, torch.Size], given: Mapping[str, torch.Size]) -> str | None:
    """A word before the names that is too much, or one that is missing."""
    as_they_are = len(own.keys() & given.keys())
    for prefix, wrapper in _WRAPPERS.items():
        bare = {key.removeprefix(prefix) for key in given if key.startswith(prefix)}
        if len(own.keys() & bare) > max(as_they_are, len(own) // 2):
            return f"{wrapper} saved them with {prefix!r} before the names; take that away"
    for prefix in _HOLDERS:
        held = {prefix + key for key in given}
        if len(own.keys() & held) > max(as_they_are, len(given) // 2):
            part = prefix.rstrip(".")
            return f"they are a {part}'s alone, without the rest of the model"
    return None


def _squeeze_excite(missing: list[str], extra: list[str], reshaped: list[str]) -> str | None:
    wrong = [*missing, *extra]
    if not wrong or reshaped or not all(".attn.fc." in key for key in wrong):
        return None
    if missing and extra:
        return None
    more, fewer = ("the model", "the file") if missing else ("the file", "the model")
    return (
        f"eSE stands in more modules of {more} than of {fewer}: timm's ese_vovnet* gate a "
        "stage's last module, the released V2 (vovnet39_v2, ...) every one, V1 none"
    )


def _norms(missing: list[str], extra: list[str], reshaped: list[str]) -> str | None:
    wrong = [*missing, *extra]
    if not wrong or reshaped or not _all_end(wrong, _STATISTICS):
        return None
    if _all_end(wrong, _STATISTICS[2:]):
        return "its batch norms were frozen, which keeps no counters"
    return f"the {'file' if missing else 'model'} normalises by groups, not by batches"


def _all_end(keys: Iterable[str], ends: tuple[str, ...]) -> bool:
    return all(key.endswith(ends) for key in keys)


def _classes(
    own: Mapping[str, torch.Size],
    given: Mapping[str, torch.Size],
    missing: list[str],
    extra: list[str],
    reshaped: list[str],
) -> str | None:
    """Only outputs differ, and in their number alone."""
    if missing or extra or not all(own[k][1:] == given[k][1:] for k in reshaped):
        return None
    return "they are for another number of classes"
