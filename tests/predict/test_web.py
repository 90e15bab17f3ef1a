"""Pictures and live streams from a server on loopback."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import pytest
from PIL import Image

from vovnet.errors import ImageError
from vovnet.predict import find_sources, stream
from vovnet.predict.live import Live
from vovnet.predict.video import read_video
from vovnet.predict.web import fetch


def answer_with(kind: str, data: bytes, code: int = 200, length: int | None = None) -> Callable:
    def answer(handler: Any) -> None:
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def address(server: Any, name: str = "shot.jpg") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def test_a_picture_from_the_web(run, serve, jpegs, tmp_path):
    server = serve(answer_with("image/jpeg", jpegs[0]))
    outcome = run("predict", address(server, "a/shot.jpg?size=2"))
    assert outcome.code == 0, outcome.err
    assert "cat" in outcome.out
    with Image.open(tmp_path / "runs/predict/predict/shot.jpg") as drawn:
        assert drawn.size == (320, 240)


def test_a_video_from_the_web(serve, shipped, video):
    pytest.importorskip("av")
    server = serve(answer_with("video/mp4", video.read_bytes()))
    for name in ("pan.mp4", "watch"):  # told by its suffix, or by the server
        assert [row.frame for row in stream(shipped, address(server, name))] == list(range(11))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answer_with("text/html", b"<p>hello"), "is text/html, no picture; check the address"),
        (answer_with("image/jpeg", b"x", code=404), "the server says 404 Not Found; check it"),
        (answer_with("image/jpeg", b"x" * 3000), "has over 0.002 MB; fetch it yourself"),
        (answer_with("image/jpeg", b"", length=5000), "has over 0.002 MB; fetch it yourself"),
        (answer_with("image/jpeg", b"abc", length=9), "broke off after 3 bytes; try it again"),
    ],
)
def test_what_is_refused(serve, answer, words):
    server = serve(answer)
    with pytest.raises(ImageError) as caught:
        fetch(address(server), max_bytes=2000)
    assert str(caught.value).startswith(f"{address(server)}: ")
    assert words in str(caught.value)


def test_what_takes_too_long(serve):
    def drip(handler: Any) -> None:
        answer_with("image/jpeg", b"", length=100)(handler)
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    def silent(handler: Any) -> None:
        time.sleep(0.5)

    with pytest.raises(ImageError, match="takes too long to come"):
        fetch(address(serve(drip)), whole=0.1)
    with pytest.raises(ImageError, match=r"cannot be fetched \(timed out\)"):
        fetch(address(serve(silent)), wait=0.1)


def test_nobody_answers(refused):
    line = refused("predict", "http://127.0.0.1:9/a.jpg")
    assert "a.jpg: cannot be fetched (" in line


def motion(jpegs: list[bytes], pause: float, cut: Event) -> Callable[[Any], None]:
    """An answer that sends pictures without end, until `cut`."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        count = 0
        try:
            while not cut.is_set():
                data = jpegs[count % len(jpegs)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                handler.wfile.write(head.encode() + data + b"\r\n")
                count += 1
                time.sleep(pause)
        except OSError:  # the reader has enough
            pass

    return answer


def test_which_addresses_are_live(serve, jpegs):
    cut = Event()
    server = serve(motion(jpegs, 0.01, cut))
    found = find_sources([address(server, "stream"), "rtsp://host/cam", "0", "/dev/video3"])
    assert found.live == [address(server, "stream"), "rtsp://host/cam", "0", "/dev/video3"]
    cut.set()
    assert find_sources([address(serve(answer_with("image/png", b"x")), "snapshot")]).live == []


def test_a_stream_that_is_lost_is_taken_up_again(serve, jpegs):
    pytest.importorskip("av")
    cut, told = Event(), []
    server = serve(motion(jpegs, 0.01, cut))
    port = server.server_address[1]
    with Live([address(server, "stream.mjpg")], tell=told.append, patience=0.1) as live:
        batches = live.batches(1)
        first = [next(batches)[0] for _ in range(5)]
        cut.set()
        server.shutdown()
        server.server_close()
        while not told:  # what was read before is still taken
            time.sleep(0.01)
        Thread(target=lambda: (time.sleep(0.3), serve(motion(jpegs, 0.01, Event()), port))).start()
        read = max(frame.number for frame in first)
        again = [next(batches)[0] for _ in range(8)]
    assert again[-1].number > read + 1
    numbers = [frame.number for frame in first + again]
    assert numbers == sorted(set(numbers))
    assert "stream.mjpg: lost (" in told[0]
    assert "; again in 0.1 s" in told[0]
    assert all(frame.seen.size == (240, 320) for frame in first + again)


@pytest.mark.parametrize("keep_all", [False, True])
def test_the_newest_frame_or_all(serve, jpegs, keep_all):
    pytest.importorskip("av")
    server = serve(motion(jpegs, 0.005, Event()))
    with Live([address(server, "s.mjpg")], keep_all=keep_all) as live:
        batches = live.batches(1)
        numbers = []
        for _ in range(6):
            numbers.append(next(batches)[0].number)
            time.sleep(0.05)
        dropped = live.dropped
    if keep_all:
        assert numbers == list(range(6))
        assert dropped == 0
    else:
        assert numbers[-1] > 10
        assert dropped > 5


def test_no_more_frames_a_second_than_asked_for(serve, jpegs):
    pytest.importorskip("av")
    server = serve(motion(jpegs, 0.005, Event()))
    with Live([address(server, "s.mjpg")], max_fps=20) as live:
        batches = live.batches(1)
        times = [next(batches)[0].time for _ in range(6)]
    assert all(later - one >= 0.049 for one, later in pairwise(times))


def test_two_streams_beside_each_other(serve, jpegs, shipped):
    pytest.importorskip("av")
    servers = [serve(motion(jpegs, 0.01, Event())) for _ in range(2)]
    names = [address(server, "s.mjpg") for server in servers]
    rows = stream(shipped, names)
    paths = [next(rows).path for _ in range(8)]
    rows.close()
    assert set(paths) == set(names)


def test_a_stream_that_was_never_there(refused):
    pytest.importorskip("av")
    line = refused("predict", "http://127.0.0.1:9/s.mjpg", "--no-save")
    assert "s.mjpg: cannot be opened (" in line


def test_a_live_job_is_kept_when_it_is_stopped(serve, start, jpegs, tmp_path):
    """Control-C: the video can be played, every row is whole, and a second run goes on."""
    pytest.importorskip("av")
    server = serve(motion(jpegs, 0.02, Event()))
    rows, read = tmp_path / "out/rows.jsonl", 0
    job = [address(server, "yard.mjpg"), "--out", "out", "--jsonl", rows, "--max-fps", 20]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    for more in ([], ["--resume"]):
        process = start(tmp_path, *job, *more, **pipes)
        until = time.monotonic() + 60
        while not rows.exists() or rows.read_bytes().count(b"\n") < read + 6:
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # every thread tells where it hangs
            said = process.communicate()[1]
        assert process.returncode == 130, said
        assert "yard.mjpg: " in said
        assert " dropped" in said
        written = [json.loads(line) for line in rows.read_text().splitlines()]
        assert len(written) >= read + 6
        read = len(written)
    videos = sorted((tmp_path / "out").glob("yard-*.mp4"))
    assert len(videos) == 2
    assert sum(len(list(read_video(path))) for path in videos) == read
    assert {row["annotated"] for row in written} == {f"out/{path.name}" for path in videos}
