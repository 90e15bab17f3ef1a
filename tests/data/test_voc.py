from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vovnet.data.formats.voc import VOC_NAMES, flat_splits, pascal_splits
from vovnet.data.frame import Frame, turn_box
from vovnet.data.open import open_dataset
from vovnet.errors import DataError
from vovnet.images import load_image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

BOMB = """<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
READER = """<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&a;</name></object></annotation>"""


def thing(name: str, *corners: object, difficult: int = 0) -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        f"<bndbox>{box}</bndbox></object>"
    )


def annotation(*things: str, size: str = "<width>40</width><height>30</height>") -> str:
    return f"<annotation><size>{size}</size>{''.join(things)}</annotation>"


def make(root: Path, files: dict[str, str], lists: dict[str, Sequence[str]] | None = None) -> Path:
    """A VOC folder with a 40x30 image for each annotation."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, xml in files.items():
        (root / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")
        Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
    for split, stems in ({"train": list(files)} if lists is None else lists).items():
        text = "".join(f"{stem}\n" for stem in stems)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return root


def refusal(root: Path, split: str = "train", **options) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(root, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_are_continuous(tmp_path):
    xml = annotation(thing("cat", 1, 1, 40, 30, difficult=1), thing("person", 3, 4.5, 10, 11))
    data = open_dataset(make(tmp_path, {"b": xml, "a": annotation()}), "train")
    first, second = data.records
    assert data.names == ("cat", "person")
    assert (data.kind, data.split, len(data)) == ("voc", "train", 2)
    assert first.boxes.tolist() == [[0, 0, 40, 30], [2, 3.5, 10, 11]]
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [0, 1]
    assert first.difficult.tolist() == [True, False]
    assert (first.size, first.image_id, first.path.name) == ((30, 40), 1, "b.jpg")
    assert second.boxes.shape == (0, 4)
    assert second.image_id == 2
    assert data.findings == ()


def test_names_agree_between_splits(tmp_path):
    files = {"a": annotation(thing("cat", 1, 1, 9, 9)), "b": annotation(thing("RBC", 1, 1, 9, 9))}
    files["broken"] = "<annotation>"
    make(tmp_path, files, {"train": ["a"], "val": ["b"]})
    assert (
        open_dataset(tmp_path, "train").names
        == open_dataset(tmp_path, "val").names
        == ("RBC", "cat")
    )


def test_names_are_pascals_only_where_all_occur(tmp_path):
    files = {name: annotation(thing(name, 1, 1, 9, 9)) for name in VOC_NAMES}
    make(tmp_path, files, {"train": ["dog"]})
    data = open_dataset(tmp_path, "train")
    assert (data.names, data.records[0].labels.tolist()) == (VOC_NAMES, [11])
    (tmp_path / "Annotations" / "sofa.xml").write_text(annotation(thing("tent", 1, 1, 9, 9)))
    assert open_dataset(tmp_path, "train").names == tuple(sorted({*VOC_NAMES, "tent"} - {"sofa"}))
    assert open_dataset(make(tmp_path / "none", {"a": annotation()}), "train").names == VOC_NAMES


def test_given_names(tmp_path):
    make(tmp_path, {"a": annotation(thing("cat", 1, 1, 9, 9), thing("dog", 1, 1, 9, 9))})
    assert open_dataset(tmp_path, "train", ["dog", "cat"]).records[0].labels.tolist() == [1, 0]
    message = refusal(tmp_path, names=["cat", "dogs"])
    assert "split train: the model does not know dog (1 boxes) (it knows dogs); give" in message


def test_faults_are_clipped_or_skipped_and_told(tmp_path):
    xml = annotation(
        thing("cat", 0, 1, 50, 30),
        thing("cat", 41, 1, 60, 30),
        thing("cat", 9, 9, 9, 9),
        thing("cat", "x", 1, 9, 9),
        thing("cat", "nan", 1, 9, 9),
        thing("cat", 1, 1, "1e999", 9),
        thing("", 1, 1, 9, 9),
        "<object><name>cat</name></object>",
        thing("cat", 0.9, 1, 40, 30.2),
    )
    data = open_dataset(make(tmp_path, {"a": xml}), "train")
    assert data.records[0].boxes.tolist() == [[0, 0, 40, 30], [0, 0, 40, 30]]
    found = sorted(data.findings, key=lambda finding: finding.object)
    assert [(f.image, f.object) for f in found] == [("a.jpg", n) for n in range(1, 9)]
    assert [f.action for f in found] == ["clipped"] + ["left out"] * 7
    assert [f.id for f in found] == [
        "VD205", "VD204", "VD203", "VD201", "VD201", "VD201", "VD302", "VD201",
    ]  # fmt: skip
    assert not any("\n" in f.what for f in found)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>x</width>"])
def test_size_from_the_image_where_the_xml_has_none(tmp_path, size):
    xml = annotation(thing("cat", 1, 1, 99, 99), size=size)
    data = open_dataset(make(tmp_path, {"a": xml}), "train")
    assert data.records[0].size == (30, 40)
    assert data.records[0].boxes.tolist() == [[0, 0, 40, 30]]


def picture(orientation: int) -> Image.Image:
    """40x30 stored pixels, black with a white box (4, 2, 15, 20), and an EXIF orientation."""
    image = Image.new("L", (40, 30))
    image.paste(255, (4, 2, 15, 20))
    image.getexif()[0x0112] = orientation
    return image


def shown(image: Image.Image) -> list[int] | None:
    """Where the white box is."""
    box = image.convert("L").point(lambda value: 255 * (value > 127)).getbbox()
    return list(box) if box else None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_like_the_picture(orientation):
    image = ImageOps.exif_transpose(picture(orientation))
    frame = Frame((image.height, image.width), orientation)
    assert list(turn_box((4, 2, 15, 20), frame)) == shown(image)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_annotations_of_the_stored_pixels_are_turned(tmp_path, orientation):
    image, file = picture(orientation), "JPEGImages/a.jpg"
    make(tmp_path, {"a": annotation(thing("cat", 5, 3, 15, 20), thing("cat", 5, 3, 99, 20))})
    image.save(tmp_path / file, exif=image.getexif(), quality=95)
    data = open_dataset(tmp_path, "train")
    assert data.records[0].size == (40, 30)
    assert data.records[0].boxes[0].tolist() == shown(load_image(tmp_path / file))
    assert [(f.image, f.object, f.id, f.action) for f in data.findings] == [
        ("a.jpg", None, "VD108", "turned"),
        ("a.jpg", 2, "VD205", "clipped"),
    ]
    assert "(5, 3, 99, 20) in 40x30" in data.findings[1].what


def test_annotations_of_the_displayed_pixels_stay(tmp_path):
    turned = annotation(thing("cat", 5, 3, 15, 20), size="<width>30</width><height>40</height>")
    make(tmp_path, {"a": turned, "b": annotation(thing("cat", 5, 3, 15, 20))})
    for stem, orientation in (("a", 6), ("b", 3)):
        image = picture(orientation)
        image.save(tmp_path / "JPEGImages" / f"{stem}.jpg", exif=image.getexif())
    data = open_dataset(tmp_path, "train")
    assert [r.size for r in data.records] == [(40, 30), (30, 40)]
    assert [r.boxes.tolist() for r in data.records] == [[[4, 2, 15, 20]]] * 2
    assert data.findings == ()


def test_sizes_that_are_not_the_images(tmp_path):
    for width, height in ((80, 60), (30, 40), (41, 30)):
        size = f"<width>{width}</width><height>{height}</height>"
        make(tmp_path, {"a": annotation(thing("cat", 1, 1, 9, 9), size=size)})
        message = refusal(tmp_path)
        assert f"VD106 image-size-differs: train, a.jpg: says {width}x{height}, is 40x30" in message
        assert "correct the size" in message
        assert open_dataset(tmp_path, "train", check_sizes=False).records[0].size == (height, width)


def test_images_without_file_or_annotation_are_left_out(tmp_path):
    make(tmp_path, {"a": annotation(), "b": annotation(), "c": annotation()})
    make(tmp_path, {}, {"train": ["a", "b", "c", "d", "a", "", "  "]})
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    (tmp_path / "JPEGImages" / "c.jpg").write_text("no image")
    data = open_dataset(tmp_path, "train")
    assert [record.path.stem for record in data.records] == ["a"]
    assert {(f.id, f.image) for f in data.findings} == {
        ("VD101", "b.jpg"), ("VD103", "c.jpg"), ("VD101", "d.jpg"), ("VD319", "a"),
    }  # fmt: skip
    assert {f.action for f in data.findings} == {"left out"}
    assert "train.txt line 5 lists it again" in [f.what for f in data.findings]


def test_other_suffixes_and_lists_of_one_class(tmp_path):
    make(tmp_path, {"a": annotation(), "b c": annotation()}, {"train": ["a  1", "b c -1"]})
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "a.png")
    assert [r.path.name for r in open_dataset(tmp_path, "train").records] == ["a.png", "b c.jpg"]


def test_folder_without_lists(tmp_path):
    make(tmp_path, {"b": annotation(), "a": annotation()}, {})
    assert list(pascal_splits(tmp_path)) == ["all"]
    assert [r.path.stem for r in open_dataset(tmp_path, "all").records] == ["a", "b"]


def test_unknown_and_empty_splits(tmp_path):
    make(tmp_path, {"a": annotation()}, {"train": ["a"], "val": [], "test": ["gone"]})
    message = refusal(tmp_path, "trian")
    assert "Did you mean train? Splits that exist: test, train, val." in message
    assert "split val has no images" in refusal(tmp_path, "val")
    assert "gone.jpg: no image, no annotation of it" in refusal(tmp_path, "test")
    assert "no split" in refusal(tmp_path, "../Main/train")
    assert "no data set is recognised" in refusal(tmp_path / "ImageSets")
    assert "check the path" in refusal(tmp_path / ("x" * 300))
    assert pascal_splits(tmp_path / ("x" * 300)) == flat_splits(tmp_path / ("x" * 300)) == {}


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (BOMB, "document type"),
        (READER, "document type"),
        ("<annotation>\n<object>\n</annotation>", "line 3"),
        ("", "no element found"),
        ("<html></html>", "not a VOC"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "XML"),
        ("<annotation>\0</annotation>", "malformed"),
    ],
)
def test_hostile_xml(tmp_path, xml, expected):
    message = refusal(make(tmp_path, {"a": xml}))
    assert expected in message
    assert message.count("a.xml") == 1


def test_oversized_xml(tmp_path):
    make(tmp_path, {"a": annotation() + " " * 10_000_001})
    message = refusal(tmp_path)
    assert "over 10000000 bytes" in message
    assert message.count("a.xml") == 1


@pytest.mark.parametrize("stem", ["../a", "/etc/passwd", "x/../../a", "C:\\a", "..\\a"])
def test_names_that_leave_the_folder(tmp_path, stem):
    make(tmp_path, {"a": annotation()}, {"train": [stem]})
    assert "leaves the data folder" in refusal(tmp_path)


def test_links_may_not_leave_the_folder(tmp_path):
    root = make(tmp_path / "set", {"a": annotation()})
    image = root / "JPEGImages" / "a.jpg"
    image.rename(root / "kept.jpg")
    image.symlink_to(root / "kept.jpg")
    assert len(open_dataset(root, "train")) == 1
    (root / "kept.jpg").rename(tmp_path / "a.jpg")
    image.unlink()
    image.symlink_to(tmp_path / "a.jpg")
    assert "link that leaves" in refusal(root)


def test_a_linked_folder_is_fine(tmp_path):
    root = make(tmp_path / "set", {"a": annotation()})
    (root / "JPEGImages").rename(tmp_path / "disk")
    (root / "JPEGImages").symlink_to(tmp_path / "disk")
    assert len(open_dataset(root, "train")) == 1


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, width=32)] * 4), max_size=5))
def test_boxes_lie_in_the_image_or_are_told(tmp_path, boxes):
    make(tmp_path, {"a": annotation(*(thing("cat", *box) for box in boxes))})
    data = open_dataset(tmp_path, "train")
    kept = data.records[0].boxes
    skipped = sum(finding.action == "left out" for finding in data.findings)
    assert len(kept) + skipped == len(boxes)
    assert (kept >= 0).all()
    assert (kept <= [40, 30, 40, 30]).all()
    assert (kept[:, 2:] > kept[:, :2]).all()


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="needs ../shared/data/bccd")
def test_bccd():
    trainval, test = (open_dataset(SHARED / "bccd", split) for split in ("trainval", "test"))
    assert (len(trainval), len(test)) == (292, 72)
    assert trainval.names == test.names == ("Platelets", "RBC", "WBC")
    assert sum(len(r.boxes) for d in (trainval, test) for r in d.records) == 4886
    where = [(f.image, f.object, f.id) for f in trainval.findings]
    assert where == [("BloodImage_00338.jpg", 13, "VD203"), ("BloodImage_00343.jpg", 4, "VD203")]


@pytest.mark.skipif(not (SHARED / "voc2007").is_dir(), reason="needs ../shared/data/voc2007")
def test_voc2007():
    data = open_dataset(SHARED / "voc2007", "report")
    assert (len(data), data.names, data.findings) == (500, VOC_NAMES, ())
    assert sum(int(r.difficult.sum()) for r in data.records) > 0
