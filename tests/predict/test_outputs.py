"""What `vovnet predict` writes beside pictures and lists: Parquet, tracks, formats."""

import json
import os
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.predict import parts
from vovnet.predict.parts import JsonPart, ParquetPart, ParquetParts
from vovnet.predict.picturefile import picture_suffix, write_picture
from vovnet.predict.row import Row
from vovnet.predict.writers import Item, MotTracks

parquet = pytest.importorskip("pyarrow.parquet")


def found(*boxes: tuple[float, ...], **more) -> Detections:
    count = len(boxes)
    places = np.array(boxes, float).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, count)
    return Detections(places, scores, [0] * count, ("cat",), image_size=(60, 80), **more)


def item(name: str, detections: Detections | None = None, frame: int | None = None) -> Item:
    error = "why" if detections is None else None
    return Item(Row(Path(name), detections, error, frame=frame, time=frame), name, 1)


def read(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in rows_of(path)]


def rows_of(path: Path) -> list[dict]:
    return parquet.read_table(path).to_pylist()


def test_parquet_holds_the_rows_of_json_lines(run, pan, tmp_path):
    for name, frame in zip(("a.png", "b.jpg"), pan, strict=False):
        frame.save(tmp_path / name)
    sources = ("a.png", "none.png", "b.jpg", "--no-save", "--out", "out")
    assert run("predict", *sources, "--save-parquet", "--jsonl", "rows.jsonl").code == 3
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    told = read(tmp_path / "out/parquet")
    assert [row["path"] for row in told] == ["a.png", "none.png", "b.jpg"]
    assert [row["error"] for row in told] == [row.get("error") for row in lines]
    for row, line in zip(told, lines, strict=True):
        assert [one["label"] for one in row["detections"]] == [
            one["label"] for one in line["detections"]
        ]
        for one, other in zip(row["detections"], line["detections"], strict=True):
            assert one["score"] == pytest.approx(other["score"])
            assert one["box"] == pytest.approx(other["box"])
    assert (told[0]["height"], told[0]["width"]) == (240, 320)


def test_masks_tracks_and_odd_names(tmp_path):
    masks = np.zeros((1, 60, 80), bool)
    masks[0, 5:9, 5:9] = True
    part = ParquetPart(tmp_path / "a.parquet")
    whole = found((1, 2, 9, 9), masks=masks, tracks=[3], mask_scores=[0.5])
    counts = {"cat": {"in": 1, "out": 0}}
    part.add(Row(Path(os.fsdecode(b"caf\xe9.mp4")), whole, frame=2, time=0.5, counts=counts))
    part.close()
    [row] = rows_of(tmp_path / "a.parquet")
    assert row["path"] == "caf\\xe9.mp4"
    assert (row["frame"], row["time"]) == (2, 0.5)
    assert row["counts"] == [("cat", {"in": 1, "out": 0})]
    [one] = row["detections"]
    assert (one["track"], one["mask_score"]) == (3, 0.5)
    assert one["segmentation"] == whole.to_dict()[0]["segmentation"]


def test_row_groups_are_written_as_rows_arise(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_GROUP", 4)
    part = ParquetPart(tmp_path / "a.parquet")
    for i in range(9):
        part.add(item(f"{i}.png", found((0, 0, 5, 5))).row)
        assert not (tmp_path / "a.parquet").exists()
    part.close()
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert [row["path"] for row in rows_of(tmp_path / "a.parquet")] == [
        f"{i}.png" for i in range(9)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("kind", [JsonPart, ParquetPart])
def test_a_part_is_whole_or_is_not_there(tmp_path, kind):
    path = tmp_path / f"part-00001{kind.suffix}"
    dropped, first, second = kind(path), kind(path), kind(path)
    for part in (dropped, first, second):  # of which one was thought lost
        part.add(item("a.png", found()).row)
    dropped.drop()
    assert not path.exists()
    first.close()
    before = path.read_bytes()
    second.close()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_where_none_can_be(tmp_path):
    (tmp_path / "file").touch()
    for kind in (JsonPart, ParquetPart):
        with pytest.raises(VovnetError, match="x: cannot write: "):
            kind(tmp_path / "file" / "part-00001.x")


def test_parts_end_where_sources_do(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_ROWS", 3)
    writer = ParquetParts(tmp_path, set())
    for i in range(3):
        writer.write(item("a.mp4", found(), frame=i), False)
    assert not read(tmp_path / "parquet")  # the video goes on
    assert writer.commit()
    first = tmp_path / "parquet/part-00001.parquet"
    assert writer.marks == {str(first): first.stat().st_size}
    writer.write(item("b.png", found()), False)
    assert not writer.commit()
    writer.write(item("c.mp4", found(), frame=0), False)
    assert not writer.settle()  # stopped in the middle of a video
    writer.close()
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    assert len(read(first.parent)) == 3


def test_leavings_of_a_kill_are_made_anew(tmp_path):
    folder = tmp_path / "parquet"
    writer = ParquetParts(tmp_path, set())
    for name in ("a.png", "b.png"):
        writer.write(item(name, found()), False)
        writer.commit()
        writer.settle()
    (folder / ".part-00003.parquet.0.part").touch()
    again = ParquetParts(tmp_path, {folder / "part-00001.parquet"})  # the journal knows one
    assert [path.name for path in folder.iterdir()] == ["part-00001.parquet"]
    again.write(item("b.png", found()), False)
    again.commit()
    again.settle()
    assert [row["path"] for row in read(folder)] == ["a.png", "b.png"]
    ParquetParts(tmp_path, None)  # a live source's: all stay
    assert len(read(folder)) == 2


def test_parts_that_are_there_are_not_replaced(run, refused, pan, tmp_path):
    pan[0].save(tmp_path / "a.png")
    job = ("predict", "a.png", "--no-save", "--out", "out", "--save-parquet")
    assert run(*job).code == 0
    assert "part-00001.parquet is there already" in refused(*job)
    assert run(*job, "--overwrite").code == 0
    assert len(read(tmp_path / "out/parquet")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_parquet_loses_and_doubles_nothing(run, start, pan, tmp_path, video, how):
    (tmp_path / "in").mkdir()
    for i in range(60):
        pan[i % 11].save(tmp_path / "in" / f"{i:02}.png")
    (tmp_path / "in/07.png").write_text("no picture")
    files = ("--save-parquet", "--save-csv", "--no-save", "--jsonl")
    job = ("predict", "in", "pan.mp4", "--out", "out", *files, "out/rows.jsonl", "--resume")
    patch = "import vovnet.predict.parts as parts; parts._ROWS = 7; "  # many parts of few rows
    for lines in (5, 30, 64):
        process = start(tmp_path, *job[1:], before=patch)
        while (rows := tmp_path / "out/rows.jsonl") and not (
            rows.exists() and rows.read_bytes().count(b"\n") >= lines
        ):
            assert process.poll() is None
        process.send_signal(how)
        process.wait(20)
    assert run(*job).code in (0, 3)
    once = ("predict", "in", "pan.mp4", "--out", "once", *files, "once/rows.jsonl")
    assert run(*once).code == 3
    told, expected = (read(tmp_path / name / "parquet") for name in ("out", "once"))
    assert Counter(map(str, told)) == Counter(map(str, expected))
    assert len(told) == 71
    for name in ("rows.jsonl", "detections.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_stops_parquet_too(tmp_path):
    part = ParquetPart(tmp_path / "a.parquet")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, part._file.fileno())
    os.close(full)
    part.add(item("a.png", found((0, 0, 5, 5))).row)
    with pytest.raises(VovnetError, match=r"a\.parquet: cannot write: No space left") as caught:
        part.close()
    assert isinstance(caught.value.__context__, OSError)
    assert not list(tmp_path.iterdir())


def test_tracks_as_motchallenge_has_them(tmp_path):
    writer = MotTracks(tmp_path)
    boxes = ((0, 0, 10, 20.5), (30, 40, 50, 80))
    writer.write(item("clip", found(*boxes, tracks=[2, 1]), frame=0), False)
    writer.write(item("clip", found(tracks=[]), frame=1), False)
    writer.write(item("clip", found(boxes[0], tracks=[2]), frame=2), False)
    writer.end()
    assert (tmp_path / "mot/clip.txt").read_text().splitlines() == [
        "1,2,1.00,1.00,10.00,20.50,0.9000,-1,-1,-1",
        "1,1,31.00,41.00,20.00,40.00,0.5000,-1,-1,-1",
        "3,2,1.00,1.00,10.00,20.50,0.9000,-1,-1,-1",
    ]
    with pytest.raises(VovnetError, match="File exists"):
        writer.write(item("clip", found(boxes[0], tracks=[2]), frame=0), False)
    with pytest.raises(VovnetError, match="File exists"):  # nor the rest of it, as if it were all
        writer.write(item("clip", found(boxes[0], tracks=[2]), frame=1), True)


@pytest.mark.slow
def test_each_video_has_its_file_of_tracks(run, refused, pan, write_video, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", pan[:4], Fraction(25))
    job = ("predict", "a.mp4", "b.mp4", "--no-save", "--save-mot", "--out", "out")
    assert "--save-mot: needs tracks; add --track" in refused(*job)
    assert run(*job, "--track").code == 0
    for name in ("a", "b"):
        lines = (tmp_path / f"out/mot/{name}.txt").read_text().splitlines()
        assert [line.split(",")[:2] for line in lines[:2]] == [["1", "1"], ["2", "1"]]
        assert all(len(line.split(",")) == 10 for line in lines)
    assert "mot/a.txt (and 1 more) is there already" in refused(*job, "--track")


@pytest.mark.parametrize(
    ("source", "wanted", "suffix"),
    [
        (Path("in/a.JPG"), None, ".JPG"),
        (Path("a.jpeg"), None, ".jpeg"),
        (Path("a.webp"), None, ".webp"),
        (Path("a.gif"), None, ".png"),  # has no room for the lines' colours
        (Path("a"), None, ".png"),
        ("http://host/a%20b.tif?size=2", None, ".tif"),
        ("http://host/shot.cgi", None, ".png"),
        (Path("a.jpg"), "png", ".png"),
    ],
)
def test_pictures_are_like_their_source_unless_asked_for(source, wanted, suffix):
    assert picture_suffix(source, wanted) == suffix


def test_formats_and_what_one_cannot_hold(tmp_path, pan):
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
    for suffix, kind in kinds.items():
        write_picture(tmp_path / f"a.{suffix}", pan[0])
        with Image.open(tmp_path / f"a.{suffix}") as image:
            assert image.format == kind
            apart = np.asarray(image.convert("RGB")).astype(int) - np.asarray(pan[0])
            assert np.abs(apart).mean() < 2
    long = Image.new("RGB", (20_000, 2))
    with pytest.raises(VovnetError, match=r"b.webp: 20000x2 cannot be written as WEBP"):
        write_picture(tmp_path / "b.webp", long)


def test_the_command_line_writes_the_format_it_is_told(run, pan, tmp_path):
    for name in ("a.png", "b.jpg"):
        pan[0].save(tmp_path / name)
    assert run("predict", "a.png", "b.jpg", "--out", "own").code == 0
    job = ("predict", "a.png", "b.jpg", "--out", "jpg", "--save-format", "jpg")
    assert run(*job, "--colour", "instance").code == 0
    for folder, names in (("own", ["a.png", "b.jpg"]), ("jpg", ["a.jpg", "b.jpg"])):
        files = sorted(path.name for path in (tmp_path / folder).glob("*.*") if path.suffix)
        assert [name for name in files if not name.startswith(".")] == names
