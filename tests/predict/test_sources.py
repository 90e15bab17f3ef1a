from pathlib import Path

import pytest
from PIL import Image

from vovnet.errors import ImageError, UnknownNameError, VovnetError
from vovnet.images import load_image
from vovnet.predict import expand_sources, find_sources
from vovnet.predict.sources import Files


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder, with pictures: names and suffixes matter here, contents do not."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.jpg",
        "a.PNG",
        "c.jpeg",
        "notes.txt",
        "notes.dat",
        ".hidden.jpg",
        "._b.jpg",
        "x[1].jpg",
    ):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "d.jpg").touch()
    (tmp_path / "deep" / "er" / "e.jpg").touch()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "readme.md").touch()
    return tmp_path


def expanded(*sources: str) -> list[str]:
    return [str(path) for path in expand_sources(sources)]


def test_files_are_taken_as_they_are(here):
    assert expanded("b.jpg", "notes.dat", "missing.jpg") == ["b.jpg", "notes.dat", "missing.jpg"]


def test_a_folder_gives_its_pictures_sorted_by_name(here):
    assert expanded(".") == ["a.PNG", "b.jpg", "c.jpeg", "x[1].jpg"]
    assert expanded(str(here)) == [str(here / n) for n in ("a.PNG", "b.jpg", "c.jpeg", "x[1].jpg")]
    assert expanded("deep") == ["deep/d.jpg"]


def test_hidden_files_only_when_named(here):
    assert not [name for name in expanded(".", "*.jpg") if name.startswith(".")]
    assert expanded(".hidden.jpg") == [".hidden.jpg"]


def test_patterns(here):
    assert expanded("*.jpg") == ["b.jpg", "x[1].jpg"]
    assert expanded("?.*") == ["a.PNG", "b.jpg", "c.jpeg"]
    assert expanded("[ab].*") == ["a.PNG", "b.jpg"]
    assert expanded("deep/**/*.jpg") == ["deep/d.jpg", "deep/er/e.jpg"]


def test_a_file_with_brackets_in_its_name_is_no_pattern(here):
    assert expanded("x[1].jpg") == ["x[1].jpg"]


def test_patterns_match_files_only(here):
    (here / "folder.jpg").mkdir()
    assert "folder.jpg" not in expanded("*.jpg")


def test_the_order_of_the_sources_is_kept_and_repeats_are_dropped(here):
    assert expanded("c.jpeg", "deep", "b.jpg", "*.jpg", "./c.jpeg", ".") == [
        "c.jpeg",
        "deep/d.jpg",
        "b.jpg",
        "x[1].jpg",
        "a.PNG",
    ]


def test_a_picture_of_scikit_image(here):
    [path] = expand_sources(["skimage:astronaut"])
    assert path.name == "astronaut.png"
    assert load_image(path).size == (512, 512)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("skimage:astronat", UnknownNameError, "Did you mean astronaut"),
        ("skimage:", UnknownNameError, "unknown scikit-image picture ''"),
        ("skimage:../astronaut", UnknownNameError, "unknown scikit-image picture"),
        ("nothing", ImageError, "no images in this folder"),
        ("*.webp", ImageError, "matches no file"),
        ("nowhere/*.jpg", ImageError, "matches no file"),
        ("notes[2].txt", ImageError, "matches no file"),
    ],
)
def test_sources_without_a_picture(here, source, error, words):
    with pytest.raises(error) as caught:
        expand_sources(["b.jpg", source])
    assert isinstance(caught.value, VovnetError)
    assert words in str(caught.value)


def test_a_bad_source_does_not_hinder_the_others(here):
    sources = ["b.jpg", "skimage:astronat", "nothing", "deep", "*.webp", "skimage:astronaut"]
    found = find_sources(sources)
    assert [path.name for path in found.files] == ["b.jpg", "d.jpg", "astronaut.png"]
    assert list(found.faults) == ["skimage:astronat", "nothing", "*.webp"]
    assert [type(fault) for fault in found.faults.values()] == [
        *(UnknownNameError, ImageError, ImageError)
    ]
    assert "it holds 1 text file (.md)" in str(found.faults["nothing"])


def test_what_is_left_out_is_counted_by_kind(here):
    for name in ("a.jfif", "b.avif", "c.jp2", "d.bmp", "e.webp"):
        (here / "deep" / name).touch()
    for name in ("1.mp4", "2.MOV", "3.mkv", "4.heic", "5.txt", "6.xyz", "LICENSE", ".DS_Store"):
        (here / "deep" / name).touch()
    (here / "deep" / "folder.jpg").mkdir()
    found = find_sources(["deep", "*"])
    names = ["a.jfif", "b.avif", "c.jp2", "d.bmp", "d.jpg", "e.webp"]
    assert [path.name for path in list(found.files)[:6]] == names
    assert list(map(str, found.left_out["deep"])) == [
        "1 picture of a format not read here (.heic)",
        "3 videos (.mkv, .mov, .mp4)",
        "1 text file (.txt)",
        "2 other files (.xyz)",
        "2 folders",
    ]
    assert list(map(str, found.left_out["*"])) == ["2 folders"]
    assert list(map(str, find_sources(["."]).left_out["."])) == [
        *("1 text file (.txt)", "1 other file (.dat)", "2 hidden pictures (.jpg)", "2 folders")
    ]


def test_nothing_is_opened(here):
    Image.new("RGB", (2, 2)).save(here / "ok.png")
    assert expanded("missing/deep.jpg", "ok.png") == ["missing/deep.jpg", "ok.png"]
    (here / "loop.jpg").symlink_to("loop.jpg")
    assert "loop.jpg" in expanded(".", "loop.jpg")


def test_a_file_is_no_address_of_the_same_name():
    files = Files([Path("a.png"), "http://host/b.png", Path("-")])
    assert Path("a.png") in files
    assert "http://host/b.png" in files
    for other in ("a.png", Path("http://host/b.png"), "-", 7):
        assert other not in files
