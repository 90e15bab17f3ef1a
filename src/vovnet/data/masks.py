"""From a record's COCO segmentations to one bitmap per object, each in its own frame."""

from pathlib import Path
from typing import Any

import numpy as np

from vovnet.data.mask_code import encode_mask
from vovnet.data.record import Record
from vovnet.data.sample import Mask
from vovnet.errors import DataError

_NONE = Mask(np.zeros((0, 0), np.uint8), np.zeros(4, np.float32))  # an object without a mask


def record_masks(record: Record, keep: np.ndarray) -> tuple[Mask, ...]:
    """The masks of the record's objects where `keep` is true, in pixels of the whole image.

    Frames are whole pixels around the mask itself. An object without a segmentation, or with an
    empty one, has an empty bitmap. Raises `DataError` for a segmentation that cannot be read.
    """
    if not record.segmentations:
        return (_NONE,) * int(keep.sum())
    if record.size is None:
        raise DataError(f"{record.path}: masks need the image's size; give it in the annotations")
    chosen = [s for s, k in zip(record.segmentations, keep, strict=True) if k]
    return tuple(_mask(segmentation, record.path, record.size) for segmentation in chosen)


def _mask(segmentation: Any, path: Path, size: tuple[int, int]) -> Mask:
    from hotcoco import mask as coco_mask

    if not segmentation:
        return _NONE
    try:
        whole = coco_mask.decode(encode_mask(segmentation, size))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    if not len(rows):
        return _NONE
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    frame = np.array([left, top, right, bottom], np.float32)
    return Mask(np.ascontiguousarray(whole[top:bottom, left:right]), frame)
