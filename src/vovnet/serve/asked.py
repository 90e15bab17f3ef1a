"""The options of a request, as `vovnet predict` has them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vovnet.detect.options import CONF, IOU, Options, class_labels
from vovnet.errors import VovnetError
from vovnet.serve.refusal import Refusal


class Asked(BaseModel):
    """What of all that the network sees is answered."""

    model_config = ConfigDict(extra="forbid")

    conf: float = Field(CONF, ge=0, le=1, description="Least score.")
    iou: float = Field(
        IOU, ge=0, le=1, description="Overlap above which the weaker of two boxes is dropped."
    )
    max_det: int | None = Field(
        None, ge=1, le=10_000, description="The most objects of a picture (default: the model's)."
    )
    classes: list[Annotated[str, Field(max_length=10_000)]] = Field(
        [], description="Names or numbers of classes, several or with commas (default: all)."
    )
    agnostic: bool = Field(
        False, description="Drop the weaker of two boxes that overlap whatever their classes are."
    )

    def options(self, names: Sequence[str]) -> Options:
        """As a detector takes them; raises `Refusal` for classes that are not in `names`."""
        words = [word.strip() for value in self.classes for word in value.split(",")]
        try:
            classes = class_labels(list(filter(None, words)) if self.classes else None, names)
            return Options(self.conf, self.iou, self.max_det, classes, self.agnostic)
        except VovnetError as error:
            raise Refusal(422, "parameters", str(error).removeprefix("--")) from None
