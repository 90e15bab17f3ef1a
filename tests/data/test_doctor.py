"""The doctor as a verb, on mangled files, and on real data."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.data.doctor import KINDS, examine, write_clean_copy
from vovnet.data.open import open_dataset
from vovnet.errors import DataError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
MANGLED = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def mangled(**good: st.SearchStrategy) -> st.SearchStrategy:
    """JSON objects whose values are mostly good ones, some missing; now and then no object."""
    fields = {key: values | values | ANYTHING for key, values in good.items()}
    whole = st.fixed_dictionaries(fields)
    return whole | whole | st.fixed_dictionaries({}, optional=fields) | ANYTHING


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ID = st.integers(0, 2)
PIXELS = st.sampled_from([-4, 0, 0.5, 1, 3, 9.5, 30, 40, 80])
SHARES = st.sampled_from([-1, 0, 1e-9, 0.2, 0.5, 1, 1.5, 4, 20])
POLYGONS = st.lists(st.lists(PIXELS, max_size=8), max_size=2)
CODE = mangled(
    size=st.sampled_from([[30, 40], [40, 30]]), counts=st.lists(st.integers(0, 1200), max_size=4)
)
IMAGE = mangled(
    id=ID, file_name=st.sampled_from(["a.png", "b.png", "c.png", "../a.png"]),
    width=st.sampled_from([40, 80]), height=st.sampled_from([30, 60]),
)  # fmt: skip
CATEGORY = mangled(id=ID, name=st.sampled_from(["cat", "Cat", "dog", ""]))
OBJECT = mangled(
    id=ID, image_id=ID, category_id=ID, bbox=st.lists(PIXELS, min_size=4, max_size=4),
    segmentation=POLYGONS | CODE, area=PIXELS, iscrowd=st.integers(0, 1),
)  # fmt: skip


def test_kinds_are_many_unique_and_complete():
    assert len(KINDS) >= 60
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)
    assert list(KINDS) == sorted(KINDS)
    for kind in KINDS.values():
        assert re.fullmatch(r"VD[1-6]\d\d", kind.id)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
        assert kind.meaning
        assert kind.mend
        assert kind.fix or kind.severity != "error", f"{kind.id}: a copy must have no errors"


def test_every_kind_is_planted_in_a_test():
    here = Path(__file__).parent
    files = [*here.glob("test_doctor_*.py"), here / "test_as_tools_write.py"]
    tests = "".join(path.read_text() for path in files)
    assert [id_ for id_ in KINDS if f'"{id_}"' not in tests] == []


def test_the_documentation_lists_every_kind():
    text = (ROOT / "docs" / "doctor.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| VD")]
    assert rows == [
        f"| {k.id} | {k.name} | {k.severity} | {k.meaning} | {k.mend} | {k.fix or '–'} |"
        for k in KINDS.values()
    ]


# ---- the verb


def test_a_clean_set(run, voc):
    outcome = run("doctor", voc)
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "voc set: 12 images (train 8, val 4), 24 boxes",
        "fit to train on: no faults",
    ]


def test_faults_warnings_and_exit_codes(run, make_voc, tmp_path):
    make_voc(tmp_path / "set")
    xml = tmp_path / "set" / "Annotations" / "train00.xml"
    xml.write_text(re.sub("<xmax>.*?</xmax>", "<xmax>90</xmax>", xml.read_text()))
    outcome = run("doctor", "set")
    assert outcome.code == 0
    assert "warning VD205 box-partly-outside: 2; clip the box" in outcome.out
    assert "train, train00.png, object 1: (" in outcome.out
    assert outcome.out.endswith("fit to train on: 0 errors, 2 warnings, 0 infos\n")
    xml.write_text("<annotation>")
    outcome = run("doctor", "set")
    assert outcome.code == 4
    assert "not fit to train on: 1 error," in outcome.out
    assert run("doctor", "set@val").code == 0
    assert run("doctor", "set", "--split", "val").code == 0


def test_json(run, make_voc, tmp_path):
    make_voc(tmp_path / "set")
    (tmp_path / "set" / "JPEGImages" / "val00.png").unlink()
    outcome = run("doctor", "set", "--json", "--no-pixels", "--workers", 2)
    assert outcome.code == 4
    report = json.loads(outcome.out)
    assert list(report) == [
        "data", "layout", "splits", "images", "boxes", "pixels", "findings", "counts", "verdict",
    ]  # fmt: skip
    assert (report["data"], report["layout"], report["pixels"]) == ("set", "voc", False)
    assert (report["splits"], report["images"]) == ({"train": 8, "val": 4}, 12)
    assert report["counts"] == {"VD101": 1}
    assert report["findings"] == [
        {
            "id": "VD101", "name": "image-missing", "severity": "error", "split": "val",
            "image": "val00.jpg", "object": None, "what": "no such file",
            "mend": KINDS["VD101"].mend,
        }
    ]  # fmt: skip
    assert "only headers" in run("doctor", "set", "--no-pixels").err


def test_fix(run, refused, make_voc, tmp_path):
    make_voc(tmp_path / "set")
    (tmp_path / "set" / "JPEGImages" / "train00.png").unlink()
    outcome = run("doctor", "set", "--fix", "copy")
    assert outcome.code == 0
    assert "fixed   VD101 1×: image left out" in outcome.out
    assert outcome.out.splitlines()[-2:] == [
        "copy of 11 images, 22 boxes, examined again: fit to train on: no faults",
        "copy",
    ]
    assert "is there already" in refused("doctor", "set", "--fix", "copy")
    assert "outside" in refused("doctor", "set", "--fix", "set/copy")
    (tmp_path / "second").mkdir()
    outcome = run("doctor", "set", "--fix", "second", "--json")
    report = json.loads(outcome.out)
    assert (outcome.code, report["copy"]["counts"], report["copy"]["images"]) == (0, {}, 11)
    assert report["findings"][0]["done"] == "image left out"


def test_nothing_left_to_copy(make_voc, tmp_path):
    make_voc(tmp_path / "set")
    for path in (tmp_path / "set" / "JPEGImages").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image is left"):
        write_clean_copy(examine(tmp_path / "set"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_fails_leaves_nothing(make_voc, tmp_path, monkeypatch):
    make_voc(tmp_path / "set")
    examined = examine(tmp_path / "set")
    (tmp_path / "set" / "Annotations" / "val03.xml").unlink()
    with pytest.raises(DataError, match="cannot be written"):
        write_clean_copy(examined, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_bad_usage(refused, voc, tmp_path):
    assert "no DATA" in refused("doctor")
    assert "no such file" in refused("doctor", "nowhere")
    assert "no such file" in refused("doctor", "nowhere.yaml")
    assert "no data set is recognised" in refused("doctor", tmp_path)
    assert "Did you mean train?" in refused("doctor", voc, "--split", "trian")
    assert "--workers" in refused("doctor", voc, "--workers", 0)


def test_explain(run):
    outcome = run("doctor", "--explain")
    assert outcome.code == 0
    assert "VD313 annotation-id-zero (warning): annotation id 0" in outcome.out
    rows = json.loads(run("doctor", "--explain", "--json").out)
    assert [row["id"] for row in rows] == list(KINDS)


# ---- mangled files never raise


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    return path


def place(picture: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(picture.read_bytes())


def check(root: Path) -> None:
    """Whatever lies in `root` is examined; what is copied of it has no errors, and can be read."""
    examined = examine(root, workers=1)
    json.dumps(examined.report.to_dict())
    copy = root.with_name(f"{root.name}_copy")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        write_clean_copy(examined, copy)
    except DataError as error:
        if "no image is left" not in str(error):
            raise
    else:
        report = examine(copy, workers=1).report
        assert [str(f) for f in report.findings if f.kind.severity == "error"] == []
        for split in report.splits:
            assert [f for f in open_dataset(copy, split).findings if f.action] == []


@MANGLED
@given(
    st.lists(PIXELS | st.text(max_size=5), min_size=4, max_size=4),
    st.sampled_from([40, 80]) | st.text(max_size=5),
    st.sampled_from(["name", "bndbox", "xmin", "size", "object", "annotation"]),
    st.text(max_size=5),
    st.integers(0, 250),
)
def test_mangled_xml(picture, tmp_path, corners, width, tag, text, cut):
    place(picture, tmp_path / "JPEGImages" / "a.png")
    xml = (
        "<annotation><size><width>{}</width><height>30</height></size><object><name>cat</name>"
        "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
        "</annotation>"
    ).format(width, *corners)
    file = tmp_path / "Annotations" / "a.xml"
    file.parent.mkdir(exist_ok=True)
    for content in (xml, xml.replace(f"<{tag}>", f"<{tag}>{text}", 1), xml[:cut]):
        file.write_bytes(content.encode())
        check(tmp_path)


@MANGLED
@given(st.lists(IMAGE, max_size=3), st.lists(CATEGORY, max_size=3), st.lists(OBJECT, max_size=4))
def test_mangled_json(picture, tmp_path, images, categories, objects):
    for name in ("a.png", "b.png"):
        place(picture, tmp_path / "images" / name)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}, *images],
        "categories": [{"id": 1, "name": "cat"}, *categories],
        "annotations": objects,
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    check(tmp_path)


@MANGLED
@given(
    st.lists(st.lists(SHARES, min_size=4, max_size=10), max_size=4),
    st.text("0123456789.-+e nai\n", max_size=30),
    st.binary(max_size=8),
)
def test_mangled_labels(picture, tmp_path, lines, text, data):
    place(picture, tmp_path / "images" / "train" / "a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    file = tmp_path / "labels" / "train" / "a.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = "".join(f"1 {' '.join(map(str, line))}\n" for line in lines)
    for content in (whole.encode(), whole.encode() + text.encode(), data):
        file.write_bytes(content)
        check(tmp_path)


@MANGLED
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_mangled_pictures(picture, tmp_path, place_, data):
    (tmp_path / "Annotations").mkdir(exist_ok=True)
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation/>")
    target = tmp_path / "JPEGImages" / "a.png"
    place(picture, target)
    whole = picture.read_bytes()
    target.write_bytes(whole[:place_] + data + whole[place_ + len(data) :])
    check(tmp_path)


# ---- real data


@pytest.mark.parametrize(
    ("name", "splits", "pixels", "images", "counts"),
    [
        ("bccd", [], True, 364, {"VD203": 2, "VD402": 1}),
        ("nuclei", [], True, 250, {"VD609": 1}),
        ("voc2007", ["trainval"], False, 5008, {"VD210": 35, "VD609": 1}),
        (
            *("coco2017_part", [], False, 2689),
            {"VD209": 321, "VD311": 1, "VD312": 2, "VD210": 13, "VD308": 1, "VD405": 1, "VD609": 1},
        ),
    ],
)
def test_real_sets(name, splits, pixels, images, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} in ../shared/data")
    report = examine(SHARED / name, splits, pixels=pixels, workers=1).report
    assert (report.images, report.counts) == (images, counts)
