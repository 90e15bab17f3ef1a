"""The doctor on YOLO folders: every fault that can be planted is found, mended, nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vovnet.data.doctor import Examined, examine, write_clean_copy
from vovnet.data.open import open_dataset

GOOD = "0 0.3 0.3 0.4 0.4\n1 0.7 0.7 0.5 0.5\n"


def add(root: Path, noise: Callable[..., Path], stem: str, text: str | None, split: str = "train"):
    noise(root / "images" / split / f"{stem}.png", sum(map(ord, split + stem)) + 999 * len(stem))
    if text is not None:
        label = root / "labels" / split / f"{stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text)


def make(root: Path, noise: Callable[..., Path], config: str = "") -> Path:
    """Eight images to train on and four to judge by, without fault."""
    for split, count in (("train", 8), ("val", 4)):
        for number in range(count):
            add(root, noise, f"{split}{number}", GOOD, split)
    default = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
    (root / "data.yaml").write_text(config or default)
    return root


LINES = [
    ("VD201", "0 nan 0.5 0.1 0.1"),
    ("VD202", "0 0.5 0.5 -0.2 0.3"),
    ("VD203", "0 0.5 0.5 0 0.1"),
    ("VD204", "0 1.5 0.5 0.1 0.1"),
    ("VD205", "1 0.9 0.5 0.4 0.25"),
    ("VD208", "0 32 32 16 16"),
    ("VD208", "0 320 240 100 100"),
    ("VD209", "0 0.5 0.5 0.02 0.5"),
    ("VD210", "0 0.5 0.5 1 1"),
    ("VD301", "7 0.5 0.5 0.25 0.25"),
    ("VD301", "cat 0.5 0.5 0.25 0.3"),
    ("VD603", "0 0.5 0.5 0.1"),
    ("VD603", "0 0.5 0.5 0.1 0.1 0.9"),
    ("VD208", "1 8 8 24 8 24 40"),
    ("VD205", "1 0.5 0.5 1.25 0.5 0.75 1.5"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory, noise) -> Path:
    root = make(
        tmp_path_factory.mktemp("yolo") / "set",
        noise,
        "train: images/train\nval: images/val\ntest: images/test\n"
        "nc: 2\nnames: {0: cat, 1: dog, 3: cat, 4: ''}\n",
    )
    add(root, noise, "lines", GOOD + "".join(f"{line}\n" for _, line in LINES))
    add(root, noise, "bare", None)
    add(root, noise, "latin", "")
    (root / "labels" / "train" / "latin.txt").write_bytes(b"\xff\xfe0 1 1")
    (root / "labels" / "train" / "orphan.txt").write_text(GOOD)
    noise(root / "images" / "train" / "film.gif", 7777)
    with Image.open(root / "images" / "train" / "train0.png") as image:
        frames = [image.convert("L"), image.convert("L").rotate(90)]
        frames[0].save(
            root / "images" / "train" / "film.gif", save_all=True, append_images=frames[1:]
        )
    (root / "labels" / "train" / "film.txt").write_text(GOOD)
    return root


@pytest.fixture(scope="module")
def examined(broken) -> Examined:
    return examine(broken)


def rows(examined: Examined) -> list[tuple]:
    found = ((f.id, f.split, f.image, f.object) for f in examined.report.findings)
    return sorted(found, key=str)


def test_a_clean_set_has_no_fault(tmp_path, noise):
    report = examine(make(tmp_path, noise)).report
    assert report.findings == ()
    assert (report.layout, report.splits, report.boxes) == ("yolo", {"train": 8, "val": 4}, 24)


def test_every_planted_fault_is_found_and_nothing_else(examined):
    expected: list[tuple] = [
        (id_, "train", "lines.png", number) for number, (id_, _) in enumerate(LINES, start=3)
    ]
    expected += [("VD606", "train", "bare.png", None), ("VD601", "train", "latin.png", None)]
    expected += [("VD112", "train", "film.gif", None)]
    expected += [("VD604", "", "orphan", None), ("VD113", "train", "film.gif", None)]
    expected += [("VD309", "", "", None)] * 2  # gaps in the numbers, and nc
    expected += [("VD302", "", "", None), ("VD303", "", "", None), ("VD407", "test", "", None)]
    expected += [("VD305", "", "", None)]  # class_4
    assert rows(examined) == sorted(expected, key=str)


def test_the_copy_is_clean_and_can_be_read(broken, examined, tmp_path):
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    write_clean_copy(examined, tmp_path / "copy")
    assert {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()} == before
    copy = examine(tmp_path / "copy").report
    assert copy.errors == 0
    assert set(copy.counts) == {"VD112", "VD113", "VD209", "VD210", "VD305", "VD606"}
    data = open_dataset(tmp_path / "copy", "train")
    assert data.names == ("cat", "dog", "class_4")
    assert {f.id for f in data.findings if f.action} == {"VD606"}
    records = {record.path.name: record for record in data.records}
    assert "latin.png" not in records
    boxes = [tuple(round(v, 2) for v in box) for box in records["lines.png"].boxes.tolist()]
    assert (24, 24, 40, 40) in boxes  # pixels divided
    assert (25.6, 22.4, 38.4, 41.6) in boxes  # width of -0.2 turned round
    assert (8, 8, 24, 40) in boxes  # a polygon in pixels
    assert (32, 32, 64, 64) in boxes  # a polygon clipped
    label = tmp_path / "copy" / "labels" / "train" / "train0.txt"
    assert label.read_text() == GOOD


def test_lists_and_folders_of_other_names(tmp_path, noise):
    root = make(tmp_path / "set", noise, "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    names = [f"images/train/train{number}.png" for number in range(8)]
    (root / "train.txt").write_text("\n".join([*names, names[0], "images/train/no.png"]))
    examined = examine(root)
    assert rows(examined) == [
        ("VD101", "train", "images/train/no.png", None),
        ("VD319", "train", "images/train/train0.png", None),
    ]
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.splits) == ((), {"train": 8, "val": 4})


def test_a_folder_without_yaml(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    (root / "data.yaml").unlink()
    assert [row[0] for row in rows(examine(root))] == ["VD323"]
    (root / "classes.txt").write_text("cat\ndog\n")
    for folder in ("images", "labels"):
        (root / folder / "train").rename(root / folder / "fold1")
    examined = examine(root)
    assert rows(examined) == []
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.splits) == ((), {"fold1": 8, "val": 4})


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ("names: [", {"VD601", "VD323"}),
        ("just text", {"VD601", "VD323"}),
        ("train: images/train\nval: images/val", {"VD323"}),
        ("train: images/train\nval: images/val\nnames: [cat]", {"VD301"}),
        ("train: images/train\nval: images/val\nnames: [[], dog]", {"VD302"}),
        ("train: /\nval: images/val\nnames: [cat, dog]", {"VD607"}),
    ],
)
def test_a_yaml_at_fault(tmp_path, noise, config, ids):
    report = examine(make(tmp_path, noise, config)).report
    assert set(report.counts) == ids
    assert report.images == 12


def test_a_split_of_too_few_images(tmp_path, noise):
    make(tmp_path, noise)
    for number in range(1, 4):
        (tmp_path / "images" / "val" / f"val{number}.png").unlink()
        (tmp_path / "labels" / "val" / f"val{number}.txt").unlink()
    (finding,) = examine(tmp_path).report.findings
    assert (finding.id, finding.split, finding.what) == ("VD406", "val", "1 of 9 images")


def test_copies_of_one_picture_in_both_splits(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    images = root / "images"
    for name in ("again0", "again1"):
        add(root, noise, name, GOOD, "val")
        (images / "val" / f"{name}.png").write_bytes((images / "train" / "train0.png").read_bytes())
    with Image.open(images / "train" / "train1.png") as picture:
        for number in range(1, 41):  # frames of one scene
            split = "train" if number % 2 else "val"
            add(root, noise, f"frame{number}", GOOD, split)
            picture.point(lambda v, n=number: min(v + n, 255)).save(
                images / split / f"frame{number}.png"
            )
    examined = examine(root)
    assert examined.report.counts == {"VD401": 2, "VD115": 1, "VD402": 20}
    write_clean_copy(examined, tmp_path / "copy")
    assert examine(tmp_path / "copy").report.counts == {"VD402": 20}


def test_places_with_the_same_names_are_told_apart(tmp_path, noise):
    root = make(tmp_path / "set", noise, "train: [a/images, b/images]\nval: images/val\n"
                "names: [cat, dog]\n")  # fmt: skip
    for seed, place in enumerate("ab"):
        for number in range(4):
            noise(root / place / "images" / f"{number}.png", 5000 + 10 * seed + number)
            label = root / place / "labels" / f"{number}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text(f"{GOOD}1 0.7 0.{7 + seed} 0.2 0.2\n")
    (root / "a" / "images" / "0.png").write_bytes(b"")
    label = root / "a" / "labels" / "1.txt"
    label.write_text(label.read_text() + GOOD)  # lines 4 and 5, of which b's file has none
    examined = examine(root)
    assert rows(examined) == [
        ("VD102", "train", "a/images/0.png", None),
        ("VD211", "train", "a/images/1.png", 4),
        ("VD211", "train", "a/images/1.png", 5),
    ]
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.splits) == ((), {"train": 7, "val": 4})
    assert copy.boxes == 7 * 3 + 4 * 2
    texts = [path.read_text() for path in (tmp_path / "copy" / "labels" / "train").iterdir()]
    assert [sum("0.8 0.2" in text for text in texts), len(texts)] == [4, 7]


def test_a_label_file_of_two_images_becomes_two(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    noise(root / "images" / "train" / "train0.bmp", 4321)
    examined = examine(root)
    assert rows(examined) == [("VD610", "train", "train0.png", None)]
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.splits) == ((), {"train": 9, "val": 4})
    assert copy.boxes == 13 * 2


def test_the_twin_with_objects_is_kept(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    bare = root / "images" / "train" / "early.png"
    bare.write_bytes((root / "images" / "train" / "train3.png").read_bytes())
    (root / "labels" / "train" / "early.txt").write_text("")
    examined = examine(root)
    assert rows(examined) == [
        ("VD115", "train", "early.png", None), ("VD116", "train", "early.png", None),
    ]  # fmt: skip
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.boxes) == ((), 24)


def test_labels_that_lie_elsewhere_leave_nothing_to_train_on(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    (root / "labels" / "train").rename(root / "labels" / "trian")
    report = examine(root).report
    assert report.counts == {"VD408": 1, "VD606": 8}
    assert report.errors == 1
    (root / "labels" / "val").rename(root / "labels" / "vla")
    assert examine(root).report.counts["VD408"] == 1


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ("train: images/trian\nval: images/val\nnames: [cat, dog]", {"VD409": 1}),
        ("names: [cat, dog]", {"VD404": 1}),
    ],
)
def test_images_to_train_on_must_be_there(tmp_path, noise, config, counts):
    report = examine(make(tmp_path, noise, config)).report
    assert counts.items() <= report.counts.items()
    assert report.errors


def test_corners_in_place_of_centre_and_sides(tmp_path, noise):
    root = make(tmp_path / "set", noise)
    for label in root.glob("labels/*/*.txt"):
        label.write_text("0 0.5 0.5 0.9 0.75\n1 0.125 0.25 0.5 0.75\n")
    examined = examine(root)
    assert examined.report.counts == {"VD213": 1}
    write_clean_copy(examined, tmp_path / "copy")
    assert examine(tmp_path / "copy").report.findings == ()
    label = tmp_path / "copy" / "labels" / "val" / "val0.txt"
    assert label.read_text() == "0 0.7 0.625 0.4 0.25\n1 0.3125 0.5 0.375 0.5\n"


@pytest.mark.parametrize("content", [b"cat\ncat\n", b"\xff\xfe"])
def test_a_classes_file_at_fault(tmp_path, noise, content):
    root = make(tmp_path, noise)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_bytes(content)
    assert {"VD303", "VD601"} & examine(root).report.counts.keys()


def test_labels_of_unlisted_images(tmp_path, noise):
    root = make(tmp_path, noise, "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    (root / "train.txt").write_text("".join(f"images/train/train{i}.png\n" for i in range(7)))
    (root / "labels" / "train" / "gone.txt").write_text(GOOD)
    assert rows(examine(root)) == [("VD604", "", "gone", None), ("VD605", "", "train7", None)]


def test_one_split_is_not_blamed_for_the_others(tmp_path, noise):
    root = make(tmp_path, noise)
    for label in (root / "labels" / "val").iterdir():
        label.write_text(GOOD.splitlines()[0])
    assert {"VD306"} == examine(root).report.counts.keys()
    assert examine(root, ["val"]).report.findings == ()
    assert examine(root, ["train"]).report.findings == ()
