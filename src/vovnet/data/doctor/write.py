"""The three layouts of a cleaned copy: what is unchanged is copied, the rest written anew."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import yaml

from vovnet.data.doctor.mend import Kept, Mended
from vovnet.data.formats.coco import coco_files, is_number, load_coco
from vovnet.data.formats.voc import parse_xml
from vovnet.data.frame import Size
from vovnet.data.mask_code import mask_shape
from vovnet.data.raw import RawSet, to_written
from vovnet.images import load_image, opened
from vovnet.text import read_text

_QUALITY = 95  # of a JPEG that must be written anew
_YAML_SPLITS = ("train", "val", "valid", "validation", "test")
_RENUMBER_CATEGORIES = {"VD302", "VD303", "VD307", "VD310", "VD316", "VD317"}
_RENUMBER_ANNOTATIONS = {"VD313", "VD314", "VD317", "VD319"}
_RENUMBER_CLASSES = {"VD303", "VD309"}

Splits = Mapping[str, Sequence[Kept]]


def write_voc(dest: Path, raw: RawSet, splits: Splits, _: Collection[str]) -> None:
    """Annotations, JPEGImages, and a list for each split."""
    written: set[str] = set()
    for split, images in splits.items():
        for kept in images:
            if kept.image.key not in written:
                written.add(kept.image.key)
                _write_voc_image(dest, kept)
        stems = "".join(f"{kept.image.key}\n" for kept in images)
        _write(dest / "ImageSets" / "Main" / f"{split}.txt", stems)


def _write_voc_image(dest: Path, kept: Kept) -> None:
    image, annotation = kept.image, kept.image.annotation
    name = f"{image.key}{kept.suffix}"
    _write_image(kept, dest / "JPEGImages" / name)
    if annotation is None:
        return
    target = dest / "Annotations" / f"{image.key}.xml"
    if not kept.changed:
        _copy(annotation, target)
        return
    root = parse_xml(annotation)
    boxes = {mended.box.number: mended for mended in kept.boxes}
    for number, element in enumerate(root.findall("object"), start=1):
        if number not in boxes:
            root.remove(element)
        elif boxes[number].changed:
            values = to_written("voc", boxes[number].corners, kept.size)
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True):
                _set(element, f"bndbox/{corner}", f"{value:.10g}")
    for side, value in zip(("height", "width"), kept.size, strict=True):
        _set(root, f"size/{side}", str(value))
    _set(root, "filename", PurePosixPath(name).name)
    _write(target, ElementTree.tostring(root, encoding="unicode"))


def _set(element: ElementTree.Element, path: str, text: str) -> None:
    for tag in path.split("/"):
        found = element.find(tag)
        element = ElementTree.SubElement(element, tag) if found is None else found
    element.text = text


def write_coco(dest: Path, raw: RawSet, splits: Splits, found: Collection[str]) -> None:
    """`annotations/instances_<split>.json` and `images/<split>`; ids anew where they were wrong."""
    files = coco_files(raw.source)
    ids = _category_ids(raw, found)
    anew = not _RENUMBER_ANNOTATIONS.isdisjoint(found)
    for split, images in splits.items():
        content = load_coco(files[split])
        known = _by_name(content["categories"])
        content["categories"] = [known.get(n, {}) | {"id": i, "name": n} for n, i in ids.items()]
        content["images"], content["annotations"] = [], []
        numbers, taken = count(1), set()
        for kept in images:
            name = _free_name(kept, kept.image.source["file_name"], taken)
            _write_image(kept, dest / "images" / split / name)
            height, width = kept.size
            entry = {"file_name": name, "width": width, "height": height}
            content["images"].append(kept.image.source | entry)
            for mended in kept.boxes:
                number = next(numbers) if anew else mended.box.number
                place = {"id": number, "image_id": kept.image.source["id"]}
                category = {"category_id": ids[mended.box.name or ""]}
                content["annotations"].append(_annotation(mended, kept.size) | place | category)
        _write(dest / "annotations" / f"instances_{split}.json", json.dumps(content))


def _by_name(categories: list[Any]) -> dict[str, dict[str, Any]]:
    """The categories as written, for what else they say than id and name."""
    objects = (category for category in categories if isinstance(category, dict))
    return {c["name"]: c for c in objects if isinstance(c.get("name"), str)}


def _category_ids(raw: RawSet, found: Collection[str]) -> dict[str, int]:
    if _RENUMBER_CATEGORIES.isdisjoint(found):
        return {name: id_ for of in raw.categories.values() for id_, name in of.items()}
    return {name: number for number, name in enumerate(raw.names, start=1)}


def _annotation(mended: Mended, size: Size) -> dict[str, Any]:
    item = dict(mended.box.source)
    if mended.changed:
        item["bbox"] = list(to_written("coco", mended.corners, size))
    if mended.box.mask is not None:
        item["segmentation"] = mended.mask
    if mended.changed or not is_number(item.get("area")):
        x1, y1, x2, y2 = mended.corners
        shape = mask_shape(mended.mask)
        item["area"] = shape.area if shape else (x2 - x1) * (y2 - y1)
    return item


def write_yolo(dest: Path, raw: RawSet, splits: Splits, found: Collection[str]) -> None:
    """`images/<split>`, `labels/<split>`, and the names in `data.yaml` or `classes.txt`."""
    numbers = {name: number for number, name in enumerate(raw.names)}
    anew = not _RENUMBER_CLASSES.isdisjoint(found)
    for split, images in splits.items():
        taken: set[str] = set()
        for kept in images:
            # Labels hang on the name without its suffix.
            name = _free_name(kept, _below_images(kept.image.name), taken, by_stem=True)
            _write_image(kept, dest / "images" / split / name)
            target = (dest / "labels" / split / name).with_suffix(".txt")
            if kept.image.annotation is None:
                continue
            if kept.changed or anew:
                written = read_text(kept.image.annotation).splitlines()
                lines = (_line(written, mended, numbers, kept.size) for mended in kept.boxes)
                _write(target, "".join(lines))
            else:
                _copy(kept.image.annotation, target)
    if set(splits) <= set(_YAML_SPLITS):
        config = {split: f"images/{split}" for split in splits} | {"names": list(raw.names)}
        _write(dest / "data.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
    else:  # a data.yaml knows only those four
        _write(dest / "classes.txt", "".join(f"{name}\n" for name in raw.names))


def _below_images(name: str) -> str:
    """What follows the last "images/" of a path, which the labels' paths hang on."""
    parts = PurePosixPath(name).parts
    last = len(parts) - parts[::-1].index("images") if "images" in parts else 0
    return str(PurePosixPath(*parts[last:]))


def _line(written: Sequence[str], mended: Mended, numbers: Mapping[str, int], size: Size) -> str:
    values, given = written[mended.box.number - 1].split()[1:], mended.box.given
    if mended.changed and len(given) > 4:
        sides = (size[1], size[0]) if max(given) > 2 else (1, 1)
        points = (min(max(v / sides[i % 2], 0.0), 1.0) for i, v in enumerate(given))
        values = [f"{value:.9g}" for value in points]
    elif mended.changed:
        values = [f"{value:.9g}" for value in to_written("yolo", mended.corners, size)]
    return f"{numbers[mended.box.name or '']} {' '.join(values)}\n"


def _free_name(kept: Kept, name: str, taken: set[str], *, by_stem: bool = False) -> str:
    """The image's name with its new suffix, lengthened where another has it (or, `by_stem`, has it
    but for the suffix)."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("") if path.suffix else path)
    suffix = "" if by_stem else kept.suffix
    while stem + suffix in taken:
        stem += "_"
    taken.add(stem + suffix)
    return stem + kept.suffix


def _write_image(kept: Kept, target: Path) -> None:
    source = kept.image.path
    if source is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if kept.pixels == "as they are":
        _link(source, target)
        return
    if kept.pixels == "upright":
        picture = load_image(source)
    else:
        with opened(source) as image:
            picture = image.convert("RGB")
            picture.info.clear()
    if target.suffix.lower() == ".png":
        picture.save(target, format="PNG")
    else:
        picture.save(target, format="JPEG", quality=_QUALITY)


def _link(source: Path, target: Path) -> None:
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(real, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
