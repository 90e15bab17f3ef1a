from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vovnet.data._common import Frame, turn_box
from vovnet.data.images import load_image
from vovnet.data.voc import VOC_NAMES, read_voc, voc_splits
from vovnet.errors import DataError

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
        read_voc(root, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_are_continuous(tmp_path):
    xml = annotation(thing("cat", 1, 1, 40, 30, difficult=1), thing("person", 3, 4.5, 10, 11))
    data = read_voc(make(tmp_path, {"b": xml, "a": annotation()}), "train")
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
    assert data.problems == ()


def test_names_agree_between_splits(tmp_path):
    files = {"a": annotation(thing("cat", 1, 1, 9, 9)), "b": annotation(thing("RBC", 1, 1, 9, 9))}
    files["broken"] = "<annotation>"
    make(tmp_path, files, {"train": ["a"], "val": ["b"]})
    assert read_voc(tmp_path, "train").names == read_voc(tmp_path, "val").names == ("RBC", "cat")


def test_names_are_pascals_only_where_all_occur(tmp_path):
    files = {name: annotation(thing(name, 1, 1, 9, 9)) for name in VOC_NAMES}
    make(tmp_path, files, {"train": ["dog"]})
    data = read_voc(tmp_path, "train")
    assert (data.names, data.records[0].labels.tolist()) == (VOC_NAMES, [11])
    (tmp_path / "Annotations" / "sofa.xml").write_text(annotation(thing("tent", 1, 1, 9, 9)))
    assert read_voc(tmp_path, "train").names == tuple(sorted({*VOC_NAMES, "tent"} - {"sofa"}))
    assert read_voc(make(tmp_path / "none", {"a": annotation()}), "train").names == VOC_NAMES


def test_given_names(tmp_path):
    make(tmp_path, {"a": annotation(thing("cat", 1, 1, 9, 9), thing("dog", 1, 1, 9, 9))})
    assert read_voc(tmp_path, "train", ["dog", "cat"]).records[0].labels.tolist() == [1, 0]
    message = refusal(tmp_path, names=["cat", "dogs"])
    assert message == "a.xml object 2: unknown class 'dog'. Did you mean dogs?"


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
    data = read_voc(make(tmp_path, {"a": xml}), "train")
    assert data.records[0].boxes.tolist() == [[0, 0, 40, 30], [0, 0, 40, 30]]
    assert [p.where for p in data.problems] == [f"a.xml object {n}" for n in range(1, 9)]
    assert [p.action for p in data.problems] == ["clipped"] + ["skipped"] * 7
    assert not any("\n" in p.what for p in data.problems)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>x</width>"])
def test_size_from_the_image_where_the_xml_has_none(tmp_path, size):
    xml = annotation(thing("cat", 1, 1, 99, 99), size=size)
    data = read_voc(make(tmp_path, {"a": xml}), "train")
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
    data = read_voc(tmp_path, "train")
    assert data.records[0].size == (40, 30)
    assert data.records[0].boxes[0].tolist() == shown(load_image(tmp_path / file))
    assert [(p.where, p.action) for p in data.problems] == [
        ("a.xml", "turned"),
        ("a.xml object 2", "clipped"),
    ]
    assert "40x30 image by 59 px" in data.problems[1].what


def test_annotations_of_the_displayed_pixels_stay(tmp_path):
    turned = annotation(thing("cat", 5, 3, 15, 20), size="<width>30</width><height>40</height>")
    make(tmp_path, {"a": turned, "b": annotation(thing("cat", 5, 3, 15, 20))})
    for stem, orientation in (("a", 6), ("b", 3)):
        image = picture(orientation)
        image.save(tmp_path / "JPEGImages" / f"{stem}.jpg", exif=image.getexif())
    data = read_voc(tmp_path, "train")
    assert [r.size for r in data.records] == [(40, 30), (30, 40)]
    assert [r.boxes.tolist() for r in data.records] == [[[4, 2, 15, 20]]] * 2
    assert data.problems == ()


def test_sizes_that_are_not_the_images(tmp_path):
    for width, height in ((80, 60), (30, 40), (41, 30)):
        size = f"<width>{width}</width><height>{height}</height>"
        make(tmp_path, {"a": annotation(thing("cat", 1, 1, 9, 9), size=size)})
        message = refusal(tmp_path)
        assert message.startswith(f"a.xml: says {width}x{height}, but ")
        assert "a.jpg is 40x30; correct" in message
        assert read_voc(tmp_path, "train", check_sizes=False).records[0].size == (height, width)


def test_images_without_file_or_annotation_are_left_out(tmp_path):
    make(tmp_path, {"a": annotation(), "b": annotation(), "c": annotation()})
    make(tmp_path, {}, {"train": ["a", "b", "c", "d", "a", "", "  "]})
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    (tmp_path / "JPEGImages" / "c.jpg").write_text("no image")
    data = read_voc(tmp_path, "train")
    assert [record.path.stem for record in data.records] == ["a"]
    assert {p.where for p in data.problems} == {"b.xml", "c.xml", "d.xml", "train.txt line 5"}


def test_other_suffixes_and_lists_of_one_class(tmp_path):
    make(tmp_path, {"a": annotation(), "b c": annotation()}, {"train": ["a  1", "b c -1"]})
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "a.png")
    assert [r.path.name for r in read_voc(tmp_path, "train").records] == ["a.png", "b c.jpg"]


def test_folder_without_lists(tmp_path):
    make(tmp_path, {"b": annotation(), "a": annotation()}, {})
    assert voc_splits(tmp_path) == ("all",)
    assert [r.path.stem for r in read_voc(tmp_path, "all").records] == ["a", "b"]


def test_unknown_and_empty_splits(tmp_path):
    make(tmp_path, {"a": annotation()}, {"train": ["a"], "val": [], "test": ["gone"]})
    message = refusal(tmp_path, "trian")
    assert "Did you mean train? Splits that exist: test, train, val." in message
    assert "split val has no images" in refusal(tmp_path, "val")
    assert "gone.xml: no such annotation" in refusal(tmp_path, "test")
    assert "no split" in refusal(tmp_path, "../Main/train")
    assert "no folder Annotations" in refusal(tmp_path / "ImageSets")
    assert "no folder Annotations" in refusal(tmp_path / ("x" * 300))
    assert voc_splits(tmp_path / ("x" * 300)) == ("all",)


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
    assert len(read_voc(root, "train")) == 1
    (root / "kept.jpg").rename(tmp_path / "a.jpg")
    image.unlink()
    image.symlink_to(tmp_path / "a.jpg")
    assert "link that leaves" in refusal(root)


def test_a_linked_folder_is_fine(tmp_path):
    root = make(tmp_path / "set", {"a": annotation()})
    (root / "JPEGImages").rename(tmp_path / "disk")
    (root / "JPEGImages").symlink_to(tmp_path / "disk")
    assert len(read_voc(root, "train")) == 1


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, width=32)] * 4), max_size=5))
def test_boxes_lie_in_the_image_or_are_told(tmp_path, boxes):
    make(tmp_path, {"a": annotation(*(thing("cat", *box) for box in boxes))})
    data = read_voc(tmp_path, "train")
    kept = data.records[0].boxes
    skipped = sum(p.action == "skipped" for p in data.problems)
    assert len(kept) + skipped == len(boxes)
    assert (kept >= 0).all()
    assert (kept <= [40, 30, 40, 30]).all()
    assert (kept[:, 2:] > kept[:, :2]).all()


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="needs ../shared/data/bccd")
def test_bccd():
    trainval, test = (read_voc(SHARED / "bccd", split) for split in ("trainval", "test"))
    assert (len(trainval), len(test)) == (292, 72)
    assert trainval.names == test.names == ("Platelets", "RBC", "WBC")
    assert sum(len(r.boxes) for d in (trainval, test) for r in d.records) == 4886
    where = [p.where for p in trainval.problems]
    assert where == ["BloodImage_00338.xml object 13", "BloodImage_00343.xml object 4"]


@pytest.mark.skipif(not (SHARED / "voc2007").is_dir(), reason="needs ../shared/data/voc2007")
def test_voc2007():
    data = read_voc(SHARED / "voc2007", "report")
    assert (len(data), data.names, data.problems) == (500, VOC_NAMES, ())
    assert sum(int(r.difficult.sum()) for r in data.records) > 0
