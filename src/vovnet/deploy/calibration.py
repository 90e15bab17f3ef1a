"""Pictures to calibrate int8 on: the user's own, and never those that judge."""

from pathlib import Path

from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.errors import VovnetError

COUNT = 300  # more change nothing


def calibration_pictures(path: Path, truth: Dataset, count: int = COUNT) -> list[Path]:
    """Up to `count` pictures, evenly over the split of a data set that is trained on.

    Raises `VovnetError` if that has none beside the pictures of `truth`.
    """
    learned = open_dataset(path, None, truth.names, drop_unknown=True)
    judging = {record.path for record in truth.records}
    paths = [record.path for record in learned.records if record.path not in judging]
    if not paths:
        raise VovnetError(
            f"{path}: has no pictures beside those that judge; give some by --calibration"
        )
    return paths[:: max(1, len(paths) // count)][:count]
