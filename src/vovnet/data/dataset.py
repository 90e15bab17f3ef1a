"""From a data set as written to records to train on: objects placed, clipped and labelled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vovnet.data.finding import Action, Finding
from vovnet.data.formats.coco import is_number, picture_places
from vovnet.data.frame import Box, Frame, Size, find_frame, turn_box
from vovnet.data.mask_code import usable_mask
from vovnet.data.placing import Placed, place_box, shown, written_as_corners
from vovnet.data.raw import RawBox, RawImage, RawSet
from vovnet.data.record import Dataset, Record, make_record
from vovnet.errors import DataError, ImageError
from vovnet.images import MAX_PIXELS, image_header
from vovnet.text import one_line

_OUTSIDE = ("VD204", "VD205")


@dataclass
class _Building:
    """A split on its way to a `Dataset`; `labels` by class name."""

    raw: RawSet
    labels: Mapping[str, int]
    check_sizes: bool
    findings: list[Finding] = field(default_factory=list)

    def tell(
        self, id_: str, what: str, image: RawImage, number: int | None, action: Action
    ) -> None:
        self.findings.append(Finding(id_, what, image.split, image.name, number, action))


def build_dataset(raw: RawSet, split: str, *, check_sizes: bool = True) -> Dataset:
    """One split of a set as written, as records; image ids are COCO's, else 1..n.

    What cannot be used is left out, boxes that leave their image are clipped, and boxes drawn on
    the stored pixels of an image that EXIF turns are turned: each is told in `Dataset.findings`.
    `check_sizes=False` saves reading every image's header, and takes a size in an annotation at its
    word. Raises `DataError` for what would make the reading a guess (files that cannot be parsed,
    classes or images that cannot be told apart, sizes that are not the image's, …), and where no
    image is left.
    """
    names = tuple(raw.categories.get(split, {}).values()) if raw.layout == "coco" else raw.names
    told = [finding for finding in raw.findings if finding.split in ("", split)]
    _refuse(raw, told)
    labels = {name: label for label, name in enumerate(names)}
    building = _Building(raw, labels, check_sizes, told)
    records: list[Record] = []
    known: dict[str, RawImage] = {}
    for image in raw.splits.get(split, ()):
        if image.path is not None:
            first = known.setdefault(str(image.path), image)
            if first is not image:
                _tell_same_file(building, image, first)
                continue
        frame = _frame(building, image)
        if frame is not None:
            records.append(_record(building, image, frame, len(records) + 1))
    _refuse(raw, building.findings)
    _refuse_corners(building, split, len(records))
    if not records:
        raise DataError(_no_images(raw, split, building.findings))
    ids = tuple(raw.categories.get(split, ()))
    findings = tuple(building.findings)
    return Dataset(raw.home, split, raw.layout, names, tuple(records), ids, findings)


def _no_images(raw: RawSet, split: str, findings: Sequence[Finding]) -> str:
    file = raw.files.get(split, raw.source)
    first = f" ({findings[0]})" if findings else ""
    mend = "check the path"
    if raw.layout == "coco":
        places = ", ".join(str(place) for place in picture_places(file, split))
        mend = f"pictures are looked for in {places}; move them there, or correct file_name"
    return one_line(f"{file}: split {split} has no images{first}; {mend}")


def _refuse(raw: RawSet, findings: Sequence[Finding]) -> None:
    """Raise `DataError` for the first finding that makes the set unfit to read, if there is one."""
    refused = [finding for finding in findings if finding.action == "refused"]
    if not refused:
        return
    first, rest = refused[0], len(refused) - 1
    more = f"; {rest} more such faults are told by: vovnet doctor {raw.source}" if rest else ""
    mend = "" if first.kind.mend in first.what else f"; {first.kind.mend}"
    file = raw.files.get(first.split) or raw.files.get("") or raw.source
    raise DataError(one_line(f"{file}: {first.id} {first.kind.name}: {first}{mend}{more}"))


def _tell_same_file(building: _Building, image: RawImage, first: RawImage) -> None:
    """One file under two names: listed once, or refused where the two say otherwise of it."""
    objects = [[(box.name, box.given) for box in boxes] for boxes in (image.boxes, first.boxes)]
    if objects[0] == objects[1]:
        building.tell("VD319", f"is the file of {first.name} too", image, None, "left out")
    else:
        what = f"is the file of {first.name} too, with other objects"
        building.tell("VD319", what, image, None, "refused")


def _refuse_corners(building: _Building, split: str, count: int) -> None:
    """Refuse a set whose boxes are two corners each where sides are expected."""
    outside = sum(finding.id in _OUTSIDE for finding in building.findings)
    if not count or not outside or building.raw.layout == "voc":
        return
    frames = ((i, _frame_given(i)) for i in building.raw.splits[split])
    every = (Placed(building.raw.layout, box, size) for i, size in frames for box in i.boxes)
    if written_as_corners(every):
        _refuse(building.raw, [Finding("VD213", f"{outside} boxes", split, action="refused")])


def _frame_given(image: RawImage) -> Size | None:
    if image.size is not None or image.path is None:
        return image.size
    try:
        return image_header(image.path).size
    except ImageError:
        return None


def _frame(building: _Building, image: RawImage) -> Frame | None:
    """The frame that an image's boxes are drawn in, or None, told, where it cannot be used."""
    if image.path is None:
        building.tell("VD101", "no such file", image, None, "left out")
        return None
    if image.size is not None and not building.check_sizes:
        return Frame(image.size)
    try:
        header = image_header(image.path)
    except ImageError as error:
        reason = str(error).removeprefix(f"{one_line(image.path)}: ")
        building.tell("VD103", reason, image, None, "left out")
        return None
    height, width = header.size
    if height * width > MAX_PIXELS:
        building.tell("VD105", f"{width}x{height}", image, None, "left out")
        return None
    frame = find_frame(image.size, header)
    if frame is None:
        (height, width), (true_height, true_width) = image.size or (0, 0), header.size
        what = f"says {width}x{height}, is {true_width}x{true_height}"
        building.tell("VD106", what, image, None, "refused")
    elif frame.orientation != 1:
        masks = any(box.mask for box in image.boxes)
        id_, action = ("VD107", "refused") if masks else ("VD108", "turned")
        building.tell(id_, f"EXIF orientation {frame.orientation}", image, None, action)
    return frame


def _record(building: _Building, image: RawImage, frame: Frame, number: int) -> Record:
    layout, drawn = building.raw.layout, frame.drawn
    rows: list[tuple[RawBox, Box]] = []
    for box in image.boxes:
        if box.name is None:  # told by the reader
            continue
        fault, inside = place_box(layout, box.given, drawn)
        if fault:
            action = "left out" if inside is None else "clipped"
            building.tell(fault, shown(box.given, drawn), image, box.number, action)
        if inside is not None:
            rows.append((box, turn_box(inside, frame) if frame.orientation != 1 else inside))
    masks = [] if layout == "voc" else [_mask(building, image, b, frame.size) for b, _ in rows]
    coco = layout == "coco"
    return make_record(
        image.path or Path(),
        image.source["id"] if coco else number,
        frame.size,
        [(inside, building.labels[box.name or ""]) for box, inside in rows],
        difficult=[box.difficult for box, _ in rows],
        crowd=[box.crowd for box, _ in rows],
        areas=[_area(*row) for row in rows] if coco else None,
        segmentations=masks if any(masks) else (),
    )


def _mask(building: _Building, image: RawImage, box: RawBox, size: Size) -> Any:
    """An object's COCO segmentation, [] where it has none that can be used."""
    if building.raw.layout == "yolo":
        return [] if len(box.given) == 4 else _polygon(box.given, size)
    mask, fault = usable_mask(box.mask, size)
    if fault:
        building.tell(*fault, image, box.number, "mask left out")
    return mask or []


def _polygon(points: tuple[float, ...], size: Size) -> list[list[float]]:
    """COCO's list of one polygon in pixels, inside the image, of one in fractions."""
    sides = (size[1], size[0])
    return [[min(max(p, 0.0), 1.0) * sides[i % 2] for i, p in enumerate(points)]]


def _area(box: RawBox, corners: Box) -> float:
    """The annotation's own area (of its mask, px²), or that of its box."""
    if is_number(box.area) and box.area >= 0:
        return float(box.area)
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
