"""Videos in and out, by the shipped nano on frames of a photograph."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from vovnet.detections import Detections
from vovnet.errors import ImageError, VovnetError
from vovnet.predict import Row, stream, writers
from vovnet.predict.video import read_video
from vovnet.predict.videofile import VideoFile
from vovnet.predict.writers import Item, Videos

av = pytest.importorskip("av")


def decoded(path) -> tuple[list[np.ndarray], Fraction]:
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], rate


def test_every_frame_comes_with_its_time(video, pan):
    shots = list(read_video(video))
    assert [shot.number for shot in shots] == list(range(11))
    assert [shot.time for shot in shots] == pytest.approx([i / 12.5 for i in range(11)])
    for shot, frame in zip(shots, pan, strict=True):
        off = np.asarray(shot.image).astype(int) - np.asarray(frame)
        assert np.abs(off).mean() < 6


def test_every_third_and_from_a_frame_on(video):
    assert [shot.number for shot in read_video(video, every=3)] == [0, 3, 6, 9]
    assert [shot.number for shot in read_video(video, every=3, start=4)] == [6, 9]


def test_phones_turn_their_videos(tmp_path, pan, write_video):
    shots = list(read_video(write_video(tmp_path / "p.mp4", pan[:2], Fraction(25), turn=90)))
    upright = pan[0].transpose(Image.Transpose.ROTATE_270)
    assert shots[0].image.size == (240, 320)
    assert np.abs(np.asarray(shots[0].image).astype(int) - np.asarray(upright)).mean() < 6


def test_what_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.mp4: is no readable video"):
        list(read_video(tmp_path / "text.mp4"))
    with pytest.raises(ImageError, match=r"no\.mp4: is no readable video \(No such file"):
        list(read_video(tmp_path / "no.mp4"))


def test_a_damaged_video_gives_what_is_sound(tmp_path, pan, shipped, write_video):
    path = write_video(tmp_path / "a.mkv", [*pan] * 4, Fraction(25))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rows = list(stream(shipped, str(path)))
    assert 0 < sum(row.error is None for row in rows) < 44


def test_the_annotated_video_has_the_same_frames_and_rate(run, video, shipped):
    outcome = run("predict", "pan.mp4", "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["frame"] for row in rows] == list(range(11))
    assert {row["annotated"] for row in rows} == {"out/pan.mp4"}
    assert all("cat" in [one["label"] for one in row["detections"]] for row in rows)
    before, rate = decoded(video)
    after, rate_after = decoded(video.parent / "out/pan.mp4")
    assert (len(after), rate_after) == (len(before), rate) == (11, Fraction(25, 2))
    for one, other in zip(before, after, strict=True):
        assert one.shape == other.shape
        off = np.abs(one.astype(int) - other).max(2)
        assert 0 < (off > 60).mean() < 0.2  # the box and its caption, and the rest as it was
    with av.open(str(video.parent / "out/pan.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"


def test_odd_sides_and_rates_that_vary(tmp_path, pan):
    frames = [frame.crop((0, 0, 319, 239)) for frame in pan]
    times = [0.0, 0.04, 0.1, 0.3, 0.31, 0.5, 0.6, 0.61, 0.8, 0.9, 1.2]
    file = VideoFile(tmp_path / "v.mp4", (319, 239), Fraction(25), replace=False)
    for frame, seconds in zip(frames, times, strict=True):
        file.add(frame, seconds + 7)
    assert not (tmp_path / "v.mp4").exists()
    file.close()
    shots = list(read_video(tmp_path / "v.mp4"))
    assert [shot.time for shot in shots] == pytest.approx(times, abs=0.001)
    assert shots[0].image.size == (320, 240)
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_every_output_of_a_video(run, video, tmp_path):
    kinds = ("--save-txt", "--save-csv", "--save-coco", "--save-crops", "--jsonl", "out/rows.jsonl")
    outcome = run("predict", "pan.mp4", "--every", 5, "--no-save", "--out", "out", *kinds)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 5, 10]
    found = [one for row in rows for one in row["detections"]]
    names = sorted(path.name for path in (tmp_path / "out/labels").iterdir())
    assert names == ["pan-000000.txt", "pan-000005.txt", "pan-000010.txt"]
    lines = [line for n in names for line in (tmp_path / "out/labels" / n).read_text().splitlines()]
    assert len(lines) == len(found)
    table = (tmp_path / "out/detections.csv").read_text().splitlines()
    assert table[0].startswith("path,frame,time,label,score,")
    assert len(table) == 1 + len(found)
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert {one["image_id"] for one in coco} == {1, 2, 3}
    assert len(coco) == len(found) > 0
    crops = list((tmp_path / "out/crops").rglob("*.png"))
    assert len(crops) == len(found)
    assert not (tmp_path / "out/pan.mp4").exists()


def test_python_streams_a_video(video, shipped):
    rows = stream(shipped, str(video), batch=4, conf=0.3)
    first = next(rows)
    assert (first.frame, first.time, first.image.size) == (0, 0.0, (320, 240))
    assert first.detections.image_size == (240, 320)
    assert [row.frame for row in rows] == list(range(1, 11))


def test_what_takes_a_videos_name_meanwhile_stays(video, pan, tmp_path):
    writer = Videos(tmp_path / "out", lambda image, found: image, 1)
    nothing = Detections(np.zeros((0, 4)), [], [], ("cat",), image_size=(240, 320))
    for i in range(2):
        row = Row(video, nothing, frame=i, time=i / 25)
        assert writer.write(Item(row, "pan", 1, pan[i], Fraction(25)), False).error is None
    (tmp_path / "out/pan.mp4").write_text("another's")
    with pytest.raises(VovnetError, match=r"out/pan\.mp4: cannot write: File exists"):
        writer.end()
    assert (tmp_path / "out/pan.mp4").read_text() == "another's"


def test_a_live_video_is_cut_into_pieces(tmp_path, pan, monkeypatch):
    monkeypatch.setattr(writers, "_SEGMENT", 10.0)
    writer = Videos(tmp_path, lambda image, found: image, 1)
    nothing = Detections(np.zeros((0, 4)), [], [], ("cat",), image_size=(240, 320))
    drawn = []
    for second in range(0, 30, 2):
        row = Row("0", nothing, frame=second, time=1.7e9 + second)
        drawn.append(writer.write(Item(row, "camera0", 1, pan[0], None, True), False).drawn)
        assert len({*drawn}) == second // 10 + 1
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert files == sorted({*drawn})
    assert [len(list(read_video(path))) for path in files] == [5, 5, 5]
