"""The doctor on VOC folders: every fault that can be planted is found, mended, and nothing else."""

import hashlib
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from vovnet.data.doctor import Examined, examine, write_clean_copy
from vovnet.data.formats.voc import parse_annotation
from vovnet.data.open import open_dataset

GOOD = ("red", 5, 5, 40, 30)
Found = tuple[str, str, str, int | None]


class Set:
    """A VOC folder under construction, and the faults that were planted in it."""

    def __init__(self, root: Path, noise: Callable[..., Path]):
        self.root, self.noise, self.seed = root, noise, 1000
        self.expected: list[Found] = []

    def picture(self, name: str, size: tuple[int, int] = (64, 64), **options) -> Path:
        self.seed += 1
        return self.noise(self.root / "JPEGImages" / name, self.seed, size, **options)

    def add(
        self, name: str, *objects: tuple, size: tuple[int, int] | None = (64, 64),
        split: str = "train", filename: str = "",
    ) -> None:  # fmt: skip
        """An annotation, listed in `split`; objects are (name, xmin, ymin, xmax, ymax)."""
        stem = Path(name).stem
        given = "<size><width>{}</width><height>{}</height></size>".format(*size) if size else ""
        xml = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in objects
        )
        text = f"<annotation><filename>{filename or name}</filename>{given}{xml}</annotation>"
        (self.root / "Annotations" / f"{stem}.xml").write_text(text)
        self.list(stem, split)

    def list(self, stem: str, split: str = "train") -> None:
        if split:
            with (self.root / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
                file.write(f"{stem}\n")

    def expect(
        self, id_: str, image: str = "", number: int | None = None, split: str = "train"
    ) -> None:
        self.expected.append((id_, split, image, number))


def plant_images(data: Set) -> None:
    for name, id_ in [("missing.jpg", "VD101"), ("empty.png", "VD102"), ("text.png", "VD103"),
                      ("cut.jpg", "VD104"), ("huge.png", "VD105"), ("bomb.png", "VD105"),
                      ("turned.jpg", "VD109"), ("really.jpg", "VD110"), ("ink.jpg", "VD111"),
                      ("palette.png", "VD112"), ("twin.png", "VD115")]:  # fmt: skip
        large = ("red", 5, 5, 4000, 3000)
        data.add(name, large if name == "huge.png" else GOOD, size=None)
        data.expect(id_, name)
    images = data.root / "JPEGImages"
    (images / "empty.png").touch()
    (images / "text.png").write_text("no picture")
    data.picture("cut.jpg", (128, 128))
    cut = (images / "cut.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (images / "huge.png").write_bytes(png(9000, 9000))
    (images / "bomb.png").write_bytes(png(20_000, 20_000))
    data.picture("turned.jpg", orientation=3)
    data.picture("really.jpg", save_as="PNG")
    data.picture("ink.jpg", mode="CMYK")
    data.picture("palette.png", mode="P")
    shutil.copy(images / "train00.png", images / "twin.png")


def png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds no pixels."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def plant_sizes(data: Set) -> None:
    data.picture("wide.png")
    data.add("wide.png", GOOD, size=(128, 64))
    data.expect("VD106", "wide.png")
    data.picture("half.png")
    data.add("half.png", ("red", 11, 21, 100, 120), size=(128, 128))
    data.expect("VD106", "half.png")
    data.picture("stored.jpg", (48, 32), orientation=6)
    data.add("stored.jpg", ("red", 3, 5, 20, 30), size=(48, 32))
    data.expect("VD108", "stored.jpg")
    data.picture("small.png", (12, 12))
    data.add("small.png", ("red", 2, 2, 6, 6), size=(12, 12))
    data.expect("VD114", "small.png")
    data.picture("bare.png")
    data.expect("VD117", "bare.png", split="")
    data.picture("nothing.png")
    data.add("nothing.png")
    data.expect("VD116", "nothing.png")
    data.expect("VD609", split="")


def plant_boxes(data: Set) -> None:
    faults = [
        ("VD201", ("red", "nan", 5, 9, 9)),
        ("VD201", ("red", "", 5, 9, 9)),
        ("VD202", ("red", 30, 5, 10, 40)),
        ("VD203", ("red", 7, 5, 7, 40)),
        ("VD204", ("red", 70, 5, 90, 40)),
        ("VD205", ("red", 50, 50, 80, 60)),
        ("VD206", ("red", 0, 4, 20, 20)),
        ("VD207", ("red", 0.1, 0.2, 0.5, 0.75)),
        ("VD209", ("red", 20, 5, 20.5, 40)),
        ("VD210", ("red", 1, 1, 64, 64)),
        ("VD302", ("", 5, 9, 30, 30)),
    ]
    data.picture("boxes.png")
    data.add("boxes.png", GOOD, *(box for _, box in faults), GOOD, ("blue", *GOOD[1:]))
    for number, (id_, _) in enumerate(faults, start=2):
        data.expect(id_, "boxes.png", number)
    data.expect("VD211", "boxes.png", len(faults) + 2)
    data.expect("VD212", "boxes.png", len(faults) + 3)


def plant_files(data: Set) -> None:
    data.picture("alike.png")
    data.add("alike.png", ("Red", 5, 5, 40, 30))
    for id_, split in [("VD304", ""), ("VD306", "val"), ("VD312", "train")]:
        data.expect(id_, split=split)
    data.list("train01")
    data.expect("VD319", "train01")
    data.list("train02", "val")
    data.expect("VD401", "train02.png", split="val")
    with Image.open(data.root / "JPEGImages" / "train03.png") as image:
        image.resize((60, 60)).save(data.root / "JPEGImages" / "near.jpg")
    data.add("near.jpg", GOOD, size=(60, 60), split="val")
    data.expect("VD402", "near.jpg", split="val")
    (data.root / "ImageSets" / "Main" / "test.txt").touch()
    data.expect("VD404", split="test")
    data.picture("torn.png")
    data.list("torn")
    (data.root / "Annotations" / "torn.xml").write_text("<annotation><object>")
    data.expect("VD601", "torn.png")
    data.picture("plain.png")
    data.list("plain")
    data.expect("VD602", "plain.png")
    data.add("orphan.png", GOOD, split="")
    data.expect("VD604", "orphan", split="")
    data.picture("spare.png")
    data.add("spare.png", GOOD, split="")
    data.expect("VD605", "spare", split="")
    data.list("../outside")
    data.expect("VD607", "../outside")
    data.picture("named.png")
    data.add("named.png", GOOD, filename="other.png")
    data.expect("VD608", "named.png")


@pytest.fixture(scope="module")
def broken(tmp_path_factory, make_voc, noise) -> Set:
    data = Set(make_voc(tmp_path_factory.mktemp("voc") / "set"), noise)
    for plant in (plant_images, plant_sizes, plant_boxes, plant_files):
        plant(data)
    return data


@pytest.fixture(scope="module")
def examined(broken) -> Examined:
    return examine(broken.root)


def found(examined: Examined) -> Iterator[Found]:
    for finding in examined.report.findings:
        yield finding.id, finding.split, finding.image, finding.object


def fingerprint(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_clean_set_has_no_fault(voc):
    report = examine(voc).report
    assert (report.findings, report.counts) == ((), {})
    assert (report.layout, report.splits) == ("voc", {"train": 8, "val": 4})
    assert (report.images, report.boxes, report.pixels) == (12, 24, True)
    assert report.verdict == "fit to train on: no faults"


def test_every_planted_fault_is_found_and_nothing_else(broken, examined):
    assert sorted(found(examined), key=str) == sorted(broken.expected, key=str)
    assert len(examined.report.counts) >= 35


def test_headers_alone_find_all_but_what_only_pixels_show(broken):
    report = examine(broken.root, pixels=False).report
    assert not report.pixels
    only_pixels = {"VD402"}
    expected = [row for row in broken.expected if row[0] not in only_pixels]
    rows = [(f.id, f.split, f.image, f.object) for f in report.findings]
    assert sorted(rows, key=str) == sorted(expected, key=str)


def test_findings_say_what_is_wrong(examined):
    what = {(f.id, f.image): f.what for f in examined.report.findings}
    assert what["VD106", "wide.png"] == "says 128x64, is 64x64"
    assert what["VD110", "really.jpg"] == "PNG called .jpg"
    assert what["VD205", "boxes.png"] == "(50, 50, 80, 60) in 64x64"
    assert what["VD401", "train02.png"] == "is train02.png of train"
    first = examined.report.findings[0]
    assert str(first).startswith("train, missing.jpg: ")
    assert not any("\n" in str(finding) for finding in examined.report.findings)


def test_one_split_alone(broken):
    report = examine(broken.root, ["val"]).report
    assert report.splits == {"val": 6}
    # The class names are those of all annotations, whatever the split.
    assert set(report.counts) == {"VD304", "VD609"}


def test_the_copy_is_clean_and_the_source_as_it_was(broken, examined, tmp_path):
    before = fingerprint(broken.root)
    findings = write_clean_copy(examined, tmp_path / "copy")
    assert fingerprint(broken.root) == before
    done = {(f.id, f.image, f.object): f.done for f in findings}
    assert done["VD104", "cut.jpg", None] == "image left out"
    assert done["VD106", "half.png", None] == "boxes scaled"
    assert done["VD106", "wide.png", None] == "image left out"
    assert done["VD202", "boxes.png", 4] == "corners swapped"
    assert done["VD204", "boxes.png", 6] == "object left out"
    assert done["VD210", "boxes.png", 11] == ""
    copy = examine(tmp_path / "copy").report
    assert copy.errors == 0
    kinds = {"VD112", "VD114", "VD116", "VD209", "VD210", "VD212", "VD304", "VD306", "VD312"}
    assert set(copy.counts) == kinds | {"VD402", "VD608", "VD609"}
    assert not list(tmp_path.glob(".*"))


def test_what_the_copy_holds(examined, tmp_path):
    write_clean_copy(examined, tmp_path / "copy")
    boxes = parse_annotation(tmp_path / "copy" / "Annotations" / "boxes.xml").objects
    assert [item.corners for item in boxes] == [
        ("5", "5", "40", "30"),
        ("10", "5", "30", "40"),
        ("50", "50", "64", "60"),
        ("1", "4", "20", "20"),
        ("7.4", "13.8", "32", "48"),
        ("20", "5", "20.5", "40"),
        ("1", "1", "64", "64"),
        ("5", "5", "40", "30"),
    ]
    data = open_dataset(tmp_path / "copy", "train")
    assert [finding for finding in data.findings if finding.action] == []
    records = {record.path.name: record for record in data.records}
    assert "really.png" in records
    assert records["half.png"].boxes.tolist() == [[5, 10, 50, 60]]
    assert records["stored.jpg"].boxes.tolist() == [[2, 2, 28, 20]]
    assert records["stored.jpg"].size == (48, 32)
    with Image.open(records["ink.jpg"].path) as image:
        assert (image.mode, dict(image.getexif())) == ("RGB", {})
    plain = records["train04.png"].path
    assert plain.samefile(examined.raw.home / "JPEGImages" / "train04.png")


def test_what_joins_other_lists_hides_nothing(make_voc, tmp_path):
    root = make_voc(tmp_path / "set")
    lists = root / "ImageSets" / "Main"
    both = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "trainval.txt").write_text(both)
    xml = root / "Annotations" / "val01.xml"
    xml.write_text(xml.read_text().replace("<name>blue</name>", "<name></name>"))
    examined = examine(root)
    [(id_, split, image, number)] = found(examined)
    assert (id_, split, image, number) == ("VD302", "val", "val01.png", 1)
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.boxes) == ((), 23)


def test_an_empty_folder_one_stands_in_can_take_the_copy(make_voc, tmp_path, monkeypatch):
    examined = examine(make_voc(tmp_path / "set"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_clean_copy(examined, ".")
    assert examine(tmp_path / "here").report.splits == {"train": 8, "val": 4}
    monkeypatch.chdir(tmp_path)
