"""`detect()`, the same for every detector: pictures in, `Detections` out."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vovnet.detect.found import Found, in_image
from vovnet.detect.options import CONF, IOU, Options, class_labels
from vovnet.detect.pictures import to_pictures
from vovnet.detections import Detections
from vovnet.input_spec import InputSpec

# Whatever `to_pictures` takes.
Pictures = Any


class AnyDetector:
    """A detector, whatever computes it: `vovnet.models.Detector`, or a `FileDetector`,
    or a `ForeignDetector`.

    `runtime` and `precision` say where and in what, `masks` whether it draws masks; `metadata` is
    that of its file.
    """

    name: str
    names: tuple[str, ...]
    input_spec: InputSpec
    masks: bool
    metadata: dict[str, Any]
    runtime: str
    precision: str

    def find(self, pixels: np.ndarray, how: Options) -> Sequence[Found]:
        """What is found in each of N prepared inputs, N×H×W×3 uint8, in their pixels."""
        raise NotImplementedError

    def detect(
        self,
        images: Pictures,
        conf: float = CONF,
        iou: float = IOU,
        *,
        max_det: int | None = None,
        classes: Iterable[str | int] | None = None,
        agnostic: bool = False,
        bgr: bool = False,
    ) -> Any:
        """`Detections` of a picture, or a list of them for several, run as one batch.

        A picture is a path, a file's bytes, a PIL image of any mode, a uint8 array H×W×3 or H×W, or
        a tensor 3×H×W (both RGB; with `bgr` as OpenCV has it); several are a list of such, an array
        N×H×W×3 or a tensor N×3×H×W. It is seen, and boxes are given, as EXIF says that it is
        displayed; boxes are in pixels of the whole picture. JPEG files are decoded at the least
        size that covers the input. The rest is told by `Options`; `classes` are names or numbers.

        Raises `ImageError` for a picture that cannot be read or is none, `VovnetError` for options
        that make no sense, and ValueError for a network of torch in training mode.
        """
        how = Options(conf, iou, max_det, class_labels(classes, self.names), agnostic)
        pictures, one = to_pictures(images, bgr=bgr, shrink_to=max(self.input_spec.size))
        if not pictures:
            return []
        prepared = [self.input_spec.prepare(picture.image, picture.size) for picture in pictures]
        found = self.find(np.stack([pixels for pixels, _ in prepared]), how)
        results: list[Detections] = []
        for picture, (_, place), what in zip(pictures, prepared, found, strict=True):
            results.append(in_image(what, place, self.names, picture.path))
        return results[0] if one else results
