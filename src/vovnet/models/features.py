"""Backbones as timm's `features_only=True` gives them: the same taps, described the same way."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vovnet.errors import VovnetError
from vovnet.models.backbone import Backbone
from vovnet.models.vovnet import VoVNet


class FeatureTable:
    """The taps of a network as timm describes them: dictionaries of num_chs, reduction, module
    and index.

    Without `idx` every method speaks of the taps that forward returns, with it of those at that
    place, or those places, in the table. Indexing, `len` and iteration go through the whole table.
    """

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info = [{**tap, "index": i} for i, tap in enumerate(info)]
        self.out_indices = tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """One value of a tap, or a list of those of several."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(
        self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None
    ) -> Any:
        """A dictionary of a tap with these keys (default: all), or a list of those of several."""
        if isinstance(idx, int):
            tap = self.info[idx]
            return tap if keys is None else {key: tap[key] for key in keys}
        return [self.get_dicts(keys, i) for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of the maps."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Strides of the maps, in pixels of the input."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Modules that the maps come out of."""
        return self.get("module", idx)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.info[item]

    def __len__(self) -> int:
        return len(self.info)


class VoVNetFeatures(nn.Module):
    """A VoVNet's feature maps at timm's taps: the stem at stride 2, then the stages.

    N×C×H×W to a list of the chosen maps. Tensors have the backbone's names; what lies behind the
    last chosen tap is left out.
    """

    def __init__(self, backbone: VoVNet, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        strided = backbone.spec.stem == "strided"
        self.stem_tap = len(backbone.stem) - (2 if strided else 1)
        width = backbone.spec.stem_widths[self.stem_tap]
        info = [{"num_chs": width, "reduction": 2, "module": f"stem.{self.stem_tap}"}]
        for i, tap in enumerate(backbone.feature_info[1:]):
            stage = {"num_chs": tap.channels, "reduction": tap.stride, "module": f"stages.{i}"}
            info.append(stage)
        self.feature_info = _table(backbone.name, info, out_indices)
        stages = max(self.feature_info.out_indices)
        self.stem = backbone.stem if stages else backbone.stem[: self.stem_tap + 1]
        self.stages = backbone.stages[:stages]

    def forward(self, images: Tensor) -> list[Tensor]:
        x, taps = images, []
        for i, layer in enumerate(self.stem):
            x = layer(x)
            if i == self.stem_tap:
                taps.append(x)
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return [taps[i] for i in self.feature_info.out_indices]


class BackboneFeatures(nn.Module):
    """Any other backbone's feature maps, at its own taps: N×C×H×W to a list of the chosen ones."""

    def __init__(self, backbone: Backbone, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        info = [
            {"num_chs": tap.channels, "reduction": tap.stride, "module": tap.name}
            for tap in backbone.feature_info
        ]
        self.feature_info = _table(backbone.name, info, out_indices)
        backbone.select(self.feature_info.out_indices)
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images)


def _table(
    name: str, info: Sequence[dict[str, Any]], out_indices: int | Sequence[int] | None
) -> FeatureTable:
    """The table with the chosen taps, by timm's rules: none given means all, a number the last so
    many, a negative place counts from the end."""
    count = len(info)
    if out_indices is None:
        out_indices = count
    if isinstance(out_indices, int):
        if not 0 < out_indices <= count:
            raise VovnetError(f"{name}: the last {out_indices} taps: must be 1..{count} of them")
        out_indices = range(count - out_indices, count)
    wrong = [i for i in out_indices if not -count <= i < count]
    if wrong or not len(out_indices):
        taps = f"taps {wrong} do not exist" if wrong else "no taps chosen"
        raise VovnetError(f"{name}: {taps}; out_indices takes 0..{count - 1}")
    return FeatureTable(info, [i % count for i in out_indices])
