import errno
import os
import pickle
import resource
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.data import cache as cache_module
from vovnet.data.cache import (
    Decoded,
    DiskCache,
    ImageCache,
    decode,
    open_cache,
    raw_sample,
)
from vovnet.data.open import open_dataset
from vovnet.data.record import Record, make_record
from vovnet.errors import DataError, ImageError, VovnetError
from vovnet.files import cache_folder
from vovnet.images import open_image


def record_of(path: Path, size: tuple[int, int], boxes: list[tuple], **marks):
    Image.new("RGB", size[::-1], "white").save(path)
    rows = [(box, label) for label, box in enumerate(boxes)]
    return make_record(path, 1, size, rows, **marks)


def test_boxes_scale_with_the_cached_image(tmp_path):
    record = record_of(tmp_path / "a.png", (200, 401), [(0, 0, 401, 200), (100.25, 50, 200.5, 100)])
    cached = raw_sample(ImageCache([record], longest=100)[0], record, False)
    assert cached.pixels.shape == (50, 100, 3)
    assert np.allclose(cached.boxes, [[0, 0, 100, 50], [25, 12.5, 50, 25]])
    whole = raw_sample(ImageCache([record], longest=401)[0], record, False)
    assert whole.pixels.shape == (200, 401, 3)
    assert np.array_equal(whole.boxes, record.boxes)


def test_small_and_thin_images_are_not_enlarged_nor_lost(tmp_path):
    records = [
        record_of(tmp_path / "a.png", (1, 1), [(0, 0, 1, 1)]),
        record_of(tmp_path / "b.png", (1, 3000), [(0, 0, 3000, 1)]),
    ]
    cache = ImageCache(records, longest=100)
    assert cache[0].pixels.shape == (1, 1, 3)
    thin = raw_sample(cache[1], records[1], False)
    assert thin.pixels.shape == (1, 100, 3)
    assert np.allclose(thin.boxes, [[0, 0, 100, 1]])


def test_crowds_never_and_difficult_only_when_asked(tmp_path):
    record = record_of(
        tmp_path / "a.png",
        (40, 40),
        [(0, 0, 9, 9), (1, 1, 9, 9), (2, 2, 9, 9), (3, 3, 9, 9)],
        difficult=[False, True, False, True],
        crowd=[False, False, True, True],
    )
    cache = ImageCache([record], longest=40)
    plain, asked = (raw_sample(cache[0], record, difficult) for difficult in (False, True))
    assert plain.labels.tolist() == [0]
    assert plain.boxes.tolist() == [[0, 0, 9, 9]]
    assert asked.labels.tolist() == [0, 1]
    assert asked.boxes.tolist() == [[0, 0, 9, 9], [1, 1, 9, 9]]


def test_an_unreadable_image_stops_with_its_name(tmp_path):
    record = record_of(tmp_path / "a.png", (40, 40), [])
    record.path.write_bytes(record.path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"a\.png: "):
        ImageCache([record], longest=40)


def same(one: Decoded, other: Decoded) -> bool:
    return np.array_equal(one.pixels, other.pixels) and one[1:] == other[1:]


@pytest.fixture
def records(make_voc, tmp_path) -> tuple[Record, ...]:
    return open_dataset(make_voc(tmp_path / "voc", train=5), "train").records


def test_all_modes_give_the_same_images(records, tmp_path):
    plain = [decode(record, 48) for record in records]
    made = {
        mode: open_cache(mode, records, 48, folder=tmp_path / "kept")
        for mode in ("ram", "disk", "off")
    }
    for kept in made.values():
        assert all(same(kept[i], one) for i, one in enumerate(plain))
    for record in records:
        record.path.unlink()
    assert same(made["ram"][4], plain[4])
    assert same(made["disk"][4], plain[4])
    with pytest.raises(ImageError, match="no such file"):
        made["off"][4]


def test_memory_holds_what_the_budget_allows(records, monkeypatch):
    monkeypatch.setattr(cache_module, "_CHUNK", 2)
    made = ImageCache(records, 48, budget=48 * 48 * 3 + 1)
    plain = decode(records[4], 48)
    for record in records[:2]:
        record.path.unlink()
    assert made[1].pixels.shape == (48, 48, 3)
    assert same(made[4], plain)  # not kept: read again


def times(made: DiskCache) -> list[int]:
    return sorted(path.stat().st_mtime_ns for path in made.path.parent.iterdir())


def test_a_second_run_reads_what_the_first_wrote(records, tmp_path):
    first = DiskCache(records, 48, tmp_path / "kept")
    before = times(first)
    second = DiskCache(records, 48, tmp_path / "kept")
    assert second.path == first.path
    assert times(second) == before
    assert all(same(second[i], first[i]) for i in range(len(records)))
    other = DiskCache(records, 32, tmp_path / "kept")
    assert other[0].pixels.shape == (32, 32, 3)
    assert times(second) == before


def test_a_changed_image_makes_it_anew_and_leaves_nothing_old(records, tmp_path):
    first = DiskCache(records, 48, tmp_path / "kept")
    Image.new("RGB", (64, 64), "red").save(records[2].path)
    second = DiskCache(records, 48, tmp_path / "kept")
    assert (second[2].pixels == (255, 0, 0)).all()
    assert same(second[1], first[1])  # a run under way keeps what it had
    assert not (first[2].pixels == (255, 0, 0)).all()
    names = {path.name for path in second.path.parent.iterdir()}
    assert names == {"lock", second.path.name, second.path.with_suffix(".index.npy").name}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def scribble(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY" + b"x" * 100)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".pixels", cut),
        (".pixels", Path.unlink),
        (".index.npy", cut),
        (".index.npy", scribble),
        (".index.npy", Path.unlink),
    ],
)
def test_a_damaged_cache_is_made_anew(records, tmp_path, suffix, damage):
    first = DiskCache(records, 48, tmp_path / "kept")
    before = [np.array(first[i].pixels) for i in range(len(records))]
    damage(first.path.with_suffix(suffix))
    again = DiskCache(records, 48, tmp_path / "kept")
    assert all(np.array_equal(again[i].pixels, one) for i, one in enumerate(before))


def test_an_index_of_other_images_is_not_believed(records, tmp_path):
    made = DiskCache(records, 48, tmp_path / "kept")
    path = made.path.with_suffix(".index.npy")
    index = np.load(path)
    index["start"][2] += 3
    np.save(path, index)
    assert same(DiskCache(records, 48, tmp_path / "kept")[2], decode(records[2], 48))


def test_a_copy_for_a_worker_holds_no_pixels(records, tmp_path):
    made = DiskCache(records, 48, tmp_path / "kept")
    data = pickle.dumps(made)
    assert same(pickle.loads(data)[3], made[3])
    assert len(data) < made.path.stat().st_size


def _first_pixels(records: tuple[Record, ...], folder: Path) -> tuple[int, int]:
    made = DiskCache(records, 48, folder)
    return made.path.stat().st_mtime_ns, int(made[4].pixels.sum())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
def test_processes_that_start_together_make_one_file(records, tmp_path):
    with get_context("fork").Pool(2) as pool:
        found = pool.starmap(_first_pixels, [(records, tmp_path / "kept")] * 2)
    assert found[0] == found[1]


def test_a_full_disk_is_one_line_with_its_mend(records, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(VovnetError, match=r"cannot write: .*; give --cache off") as caught:
            DiskCache(records, 48, tmp_path / "kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(caught.value).splitlines()) == 1
    [folder] = (tmp_path / "kept").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_made_is_one_line(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VovnetError, match=r"Not a directory; give --cache off"):
        DiskCache(records, 48, tmp_path / "file" / "kept")


def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VOVNET_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("VOVNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vovnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "vovnet"


def test_an_image_of_another_size_than_was_annotated_is_refused(records):
    Image.new("RGB", (40, 30)).save(records[2].path)
    with pytest.raises(DataError, match=r"is 40x30, and its annotation is for 64x64; put back"):
        decode(records[2], 48)


class Share:
    """A network share that is away for the first `failures` reads, saying `code`."""

    def __init__(self, failures: int, code: int) -> None:
        self.failures, self.code, self.pauses = failures, code, []

    def open(self, path: Path, **options):
        if self.failures:
            self.failures -= 1
            raise ImageError(f"{path}: away") from OSError(self.code, os.strerror(self.code))
        return open_image(path, **options)


@pytest.fixture
def share(monkeypatch):
    def away(failures: int, code: int) -> Share:
        made = Share(failures, code)
        monkeypatch.setattr(cache_module, "open_image", made.open)
        monkeypatch.setattr(cache_module.time, "sleep", made.pauses.append)
        return made

    return away


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_share_that_comes_back_is_waited_for(records, share, code):
    away = share(3, code)
    assert decode(records[0], 48).pixels.shape == (48, 48, 3)
    assert len(away.pauses) == 3
    assert away.pauses == sorted(away.pauses)


def test_a_share_that_stays_away_is_an_error(records, share):
    away = share(100, errno.EIO)
    with pytest.raises(ImageError, match="away"):
        decode(records[0], 48)
    assert 0 < sum(away.pauses) < 15


def test_what_no_waiting_mends_is_not_waited_for(records, share):
    away = share(1, errno.ENOENT)
    with pytest.raises(ImageError, match="away"):
        decode(records[0], 48)
    assert away.pauses == []
