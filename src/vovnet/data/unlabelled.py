"""Pictures without labels, of which only a teacher tells."""

from pathlib import Path

from vovnet.data.folder import walk_files
from vovnet.data.record import Dataset, Record, make_record
from vovnet.errors import DataError
from vovnet.images import IMAGE_SUFFIXES, image_header


def open_unlabelled(folder: Path, names: tuple[str, ...]) -> Dataset:
    """The pictures in a folder and below it as a data set without objects.

    Raises `DataError` for a folder without pictures, `ImageError` for one that cannot be read.
    """
    files = walk_files(folder, IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{folder}: no pictures in it; give a folder of pictures to --unlabelled")
    records = tuple(_record(folder / file, number) for number, file in enumerate(files, 1))
    return Dataset(folder, "unlabelled", "unlabelled", names, records)


def _record(path: Path, number: int) -> Record:
    return make_record(path, number, image_header(path).size, [])
