"""The page that `val` and `report` write, and its figures as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from vovnet.cli._options import Overwrite
from vovnet.errors import MissingExtraError

if TYPE_CHECKING:
    from vovnet.data.record import Dataset
    from vovnet.detections import Detections


@Parameter(name="*")
@dataclass(frozen=True)
class Pages:
    """What to write."""

    html: Path | None = None
    """Write a page here: curves, mistakes and pictures. An earlier one is replaced."""
    png: Path | None = None
    """Write the page's figures as pictures into this folder, which holds none yet."""
    overwrite: Overwrite = False
    """Replace earlier pictures in --png."""

    def __bool__(self) -> bool:
        return self.html is not None or self.png is not None

    def check(self) -> None:
        """Raise `VovnetError`, before anything is measured, for what could not be written then."""
        from vovnet.files import refuse_replacing

        if self.html is not None:
            refuse_replacing("--html", [self.html], overwrite=True)
            if find_spec("jinja2") is None:
                raise MissingExtraError("jinja2", "train", "the page")
        if self.png is not None:
            refuse_replacing("--png", sorted(self.png.glob("*.png")), overwrite=self.overwrite)
            if find_spec("matplotlib") is None:
                raise MissingExtraError("matplotlib", "bench", "--png")

    def of_found(
        self, found: "Sequence[Detections]", dataset: "Dataset", metrics: dict[str, Any]
    ) -> None:
        """Write the page of an evaluation."""
        from vovnet.review.matches import judged
        from vovnet.review.page import page_of_found

        conf, weights = float(metrics["conf"]), str(metrics["weights"])
        beside = judged(found, dataset.records, dataset.names, conf)
        facts = [
            ("data", f"{dataset.root}, {dataset.split}"),
            ("computed by", f"{metrics['runtime']} {metrics['precision']}"),
            ("scores above", f"{conf:g}"),
            ("overlaps up to", f"{metrics['iou']:g}"),
        ]
        page_of_found(beside, weights, facts).write(self.html, self.png)
