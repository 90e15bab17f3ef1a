import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.data.formats.coco import coco_files
from vovnet.data.open import open_dataset
from vovnet.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
POLYGON = [[1.0, 2.0, 5.0, 2.0, 5.0, 9.0]]


def content(*annotations: dict, **changes) -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 3, "name": "cat"}],
        "annotations": list(annotations),
        **changes,
    }


def thing(bbox: object, category: object = 3, image: object = 7, **extra) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": bbox, **extra}


def make(root: Path, data: object, name: str = "instances_train.json") -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return root / name


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_boxes_areas_masks_and_crowds(tmp_path):
    rle = {"size": [30, 40], "counts": [0, 1200]}
    file = make(
        tmp_path,
        content(
            thing([1, 2, 4, 7], segmentation=POLYGON, area=14.5, iscrowd=0),
            thing([0, 0, 40, 30], 90, segmentation=rle, iscrowd=1),
            thing([0.5, 0, 2, 3]),
        ),
    )
    data = open_dataset(file)
    (record,) = data.records
    assert (data.kind, data.split, data.names) == ("coco", "train", ("cat", "zebra"))
    assert data.category_ids == (3, 90)
    assert (record.image_id, record.size) == (7, (30, 40))
    assert record.boxes.tolist() == [[1, 2, 5, 9], [0, 0, 40, 30], [0.5, 0, 2.5, 3]]
    assert record.labels.tolist() == [0, 1, 0]
    assert record.crowd.tolist() == [False, True, False]
    assert record.areas is not None
    assert record.areas.tolist() == [14.5, 1200, 6]
    assert record.segmentations == (POLYGON, rle, [])
    assert [finding for finding in data.findings if finding.action] == []


def test_without_masks_there_are_none(tmp_path):
    data = open_dataset(make(tmp_path, content(thing([1, 2, 4, 7]))))
    assert data.records[0].segmentations == ()


def test_faults_are_clipped_or_skipped_and_told(tmp_path):
    bad = [[1, 2, 3], None, "1234", [1, 2, "3", 4], [True, 0, 4, 4], [0, 0, 0, 5], [50, 1, 9, 9]]
    bad += [[0, 0, float("nan"), 5], [0, 0, float("inf"), 5], [0, 0, 10**400, 5]]
    things = [thing(box) for box in bad] + [thing([35, 20, 10, 20]), thing([0, 0, 40.01, 30])]
    things += [thing([0, 0, 4, 4], 4), thing([0, 0, 4, 4], image=8), thing([0, 0, 4, 4], [1])]
    data = open_dataset(make(tmp_path, content(*things, *["text"])))
    assert data.records[0].boxes.tolist() == [[35, 20, 40, 30], [0, 0, 40, 30]]
    assert sum(p.action == "left out" for p in data.findings) == len(bad) + 4
    assert [f.what for f in data.findings if f.action == "clipped"] == ["(35, 20, 10, 20) in 40x30"]
    ids = Counter(f.id for f in data.findings if f.action)
    assert ids == {"VD201": 8, "VD203": 1, "VD205": 1, "VD301": 2, "VD318": 1, "VD603": 1} | {
        "VD204": 1
    }
    assert {f.object for f in data.findings if f.id == "VD201"} == {1}


@pytest.mark.parametrize(
    ("orientation", "box"),
    [(5, [2, 1, 9, 5]), (6, [21, 1, 28, 5]), (7, [21, 35, 28, 39]), (8, [2, 35, 9, 39])],
)
def test_annotations_of_the_stored_pixels_are_turned(tmp_path, orientation, box):
    file = make(tmp_path, content(thing([1, 2, 4, 7], area=20, iscrowd=1)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.jpg", exif=exif)
    data = open_dataset(file)
    (record,), (problem,) = data.records, data.findings
    assert (record.size, record.boxes.tolist(), record.crowd.tolist()) == ((40, 30), [box], [True])
    assert record.areas is not None
    assert record.areas.tolist() == [20]
    assert (problem.image, problem.id, problem.action) == ("a.jpg", "VD108", "turned")
    for mask in (POLYGON, {"size": [30, 40], "counts": "abc"}):
        make(tmp_path / "masks", content(thing([1, 2, 4, 7], segmentation=mask)))
        Image.new("RGB", (40, 30)).save(tmp_path / "masks" / "images" / "a.jpg", exif=exif)
        message = refusal(tmp_path / "masks" / "instances_train.json")
        assert f"VD107 image-stored-masks: train, a.jpg: EXIF orientation {orientation}" in message


def test_sizes_that_are_not_the_images(tmp_path):
    images = [{"id": 7, "file_name": "a.jpg", "width": 80, "height": 60}]
    file = make(tmp_path, content(thing([1, 2, 4, 7]), images=images))
    message = refusal(file)
    assert "instances_train.json: VD106 image-size-differs: train, a.jpg: says 80x60, " in message
    assert "is 40x30; correct the size" in message
    assert open_dataset(file, check_sizes=False).records[0].size == (60, 80)


def test_missing_images_and_sizes(tmp_path):
    images = [{"id": 1, "file_name": "gone.jpg"}, {"id": 2, "file_name": "a.jpg", "width": 0}]
    images += [{"id": 3, "file_name": "text.jpg"}]
    file = make(tmp_path, content(images=images))
    (tmp_path / "images" / "text.jpg").write_text("no image")
    data = open_dataset(file)
    assert [(r.image_id, r.size) for r in data.records] == [(2, (30, 40))]
    assert [(f.image, f.id) for f in data.findings] == [
        ("gone.jpg", "VD101"),
        ("text.jpg", "VD103"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n "images": [,]}', "line 2 column 13"),
        ("", "bad JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list 'annotations'"),
        ("[" * 100_000, "bad JSON"),
        ('{"images": ' + "9" * 5000 + "}", ""),
    ],
)
def test_bad_json(tmp_path, text, expected):
    assert expected in refusal(make(tmp_path, text))


def test_bad_encoding(tmp_path):
    file = make(tmp_path, "")
    file.write_bytes(b'{"images": "\xff"}')
    assert "UTF-8" in refusal(file)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": [{"id": 1, "file_name": n} for n in ("a.jpg", "b.jpg")]}, "VD315"),
        ({"images": [{"id": "1", "file_name": "a.jpg"}]}, "VD317"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, "VD317"),
        ({"images": [{"id": 10**30, "file_name": "a.jpg"}]}, "VD317"),
        ({"images": ["a.jpg"]}, "images entry 1 is 'a.jpg', no object"),
        ({"images": [{"id": 1}]}, "images entry 1 has the file_name None"),
        ({"images": []}, "has no images"),
        ({"categories": [{"id": 1}]}, "category 1 has the name None; name the class"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "VD303"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "VD316"),
    ],
)
def test_bad_structure(tmp_path, changes, expected):
    assert expected in refusal(make(tmp_path, content(**changes)))


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "C:\\a.jpg", "a\0"])
def test_names_that_leave_the_folder(tmp_path, name):
    file = make(tmp_path, content(images=[{"id": 1, "file_name": name}]))
    assert "leaves the data folder" in refusal(file)


def test_names_that_no_file_system_holds(tmp_path):
    images = [
        {"id": i, "file_name": name} for i, name in enumerate(["\ud800/a.jpg", "\n", "a.jpg"])
    ]
    data = open_dataset(make(tmp_path, content(images=images)))
    assert len(data) == 1
    assert not any("\n" in p.what for p in data.findings)


def test_links_may_not_leave_the_folder(tmp_path):
    file = make(tmp_path / "set", content(images=[{"id": 1, "file_name": "sub/b.jpg"}]))
    images = tmp_path / "set" / "images"
    (tmp_path / "outside").mkdir()
    (images / "a.jpg").rename(tmp_path / "outside" / "b.jpg")
    (images / "sub").symlink_to(tmp_path / "outside")
    assert "link that leaves" in refusal(file)
    (images / "sub").unlink()
    (images / "sub").mkdir()
    (images / "sub" / "b.jpg").symlink_to(tmp_path / "outside" / "b.jpg")
    assert "link that leaves" in refusal(file)


def test_links_inside_the_data_set_are_fine(tmp_path):
    root = tmp_path / "set"
    file = make(root, content(), "annotations/instances_train.json")
    (root / "store").mkdir()
    (root / "images" / "a.jpg").rename(root / "store" / "a.jpg")
    (root / "images" / "a.jpg").symlink_to(root / "store" / "a.jpg")
    assert len(open_dataset(file)) == 1
    (root / "store" / "a.jpg").rename(tmp_path / "a.jpg")
    (root / "images" / "a.jpg").unlink()
    (root / "images" / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert "link that leaves" in refusal(file)


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("instances_val.json", "images"),
        ("annotations/instances_val.json", "images"),
        ("annotations/instances_val.json", "val"),
        ("annotations/instances_val.json", "val2017"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("instances_val.json", "images/val"),
        ("val/_annotations.coco.json", "val"),
        ("instances_val.json", "."),
    ],
)
def test_usual_places_of_images(tmp_path, file, images):
    path = make(tmp_path, content(), file)
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    (tmp_path / "images" / "a.jpg").rename(tmp_path / images / "a.jpg")
    (split,) = coco_files(tmp_path)
    assert split.startswith("val")
    assert coco_files(tmp_path)[split] == path
    assert open_dataset(path).records[0].path.resolve() == (tmp_path / images / "a.jpg").resolve()


def test_names_too_long_for_the_file_system(tmp_path):
    assert coco_files(tmp_path / ("x" * 300)) == {}
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".json"))


def test_images_nowhere(tmp_path):
    file = make(tmp_path, content())
    (tmp_path / "images" / "a.jpg").unlink()
    message = refusal(file)
    assert "a.jpg: no such file" in message
    assert f"pictures are looked for in {tmp_path}/images/train, {tmp_path}/train, " in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(JSON, JSON, JSON, JSON)
def test_any_json_is_read_or_refused(tmp_path, bbox, image, width, extra):
    things = [thing(bbox), thing([1, 1, 5, 5], image), extra]
    images = [{"id": 7, "file_name": "a.jpg", "width": width, "height": 30}]
    file = make(tmp_path, content(*things, images=images))
    record = open_dataset(file, check_sizes=False).records[0]
    assert record.boxes.shape == (len(record.labels), 4)
    assert np.isfinite(record.boxes).all()


@pytest.mark.skipif(not (SHARED / "coco2017_part").is_dir(), reason="needs ../shared/data")
def test_coco2017_part():
    data = open_dataset(SHARED / "coco2017_part" / "instances_train.json")
    assert (len(data), len(data.names), data.category_ids[-1]) == (2689, 80, 90)
    assert sum(len(r.boxes) for r in data.records) == 25_255
    assert data.findings == ()


@pytest.mark.skipif(not (SHARED / "nuclei").is_dir(), reason="needs ../shared/data/nuclei")
def test_nuclei():
    data = open_dataset(SHARED / "nuclei" / "instances_val.json")
    assert (len(data), data.names) == (50, ("nucleus",))
    assert all(len(r.segmentations) == len(r.boxes) for r in data.records)
