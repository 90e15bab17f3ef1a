from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from vovnet.detections import Detections
from vovnet.predict import draw_detections

NAMES = ("cat", "dog", "Zebra-Überraschung ✈")


def found(*boxes: tuple[float, ...], labels: list[int] | None = None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.3, count) if count else np.zeros(0),
        np.array(labels if labels is not None else [0] * count, np.int64),
        NAMES,
    )


def changed(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int] | None:
    """Box around the pixels that differ, or None."""
    return ImageChops.difference(before, after).getbbox()


def test_the_image_given_stays_as_it_was():
    image = Image.new("RGB", (200, 150), "white")
    kept = image.copy()
    drawn = draw_detections(image, found((20, 40, 120, 100)))
    assert changed(image, kept) is None
    assert changed(image, drawn) is not None
    assert (drawn.mode, drawn.size) == ("RGB", (200, 150))


def test_nothing_found_nothing_drawn():
    image = Image.new("RGB", (50, 40), "white")
    drawn = draw_detections(image, found())
    assert changed(image, drawn) is None
    assert drawn is not image


def test_the_outline_lies_on_the_box_and_its_inside_stays_open():
    image = Image.new("RGB", (400, 300), "white")
    pixels = np.asarray(draw_detections(image, found((100, 120, 300, 250))))
    painted = (pixels != 255).any(2)
    assert painted[120:122, 100:301].all()
    assert painted[249:251, 100:301].all()
    assert painted[120:251, 100:102].all()
    assert painted[120:251, 299:301].all()
    assert not painted[130:240, 110:290].any()
    outside = painted.copy()
    outside[120:251, 100:301] = False
    caption = outside[90:120, 100:301]  # above the box's corner, nowhere else
    assert caption.any()
    assert outside.sum() == caption.sum()


def test_the_caption_moves_inside_at_the_upper_edge():
    image = Image.new("RGB", (400, 300), "white")
    pixels = np.asarray(draw_detections(image, found((100, 2, 300, 250))))
    painted = (pixels != 255).any(2)
    assert painted[6:14, 103:130].all()
    assert not painted[:2].any()


def test_colours_tell_the_classes_apart():
    image = Image.new("RGB", (400, 300), "white")
    boxes = ((20, 100, 100, 200), (150, 100, 250, 200), (280, 100, 390, 200))
    pixels = np.asarray(draw_detections(image, found(*boxes, labels=[0, 1, 0])))
    first, second, third = (tuple(pixels[150, int(box[0])]) for box in boxes)
    assert first == third != second


def test_the_best_lies_on_top():
    image = Image.new("RGB", (400, 300), "white")
    box = (100, 100, 200, 200)
    both = draw_detections(image, found(box, box, labels=[0, 1]))
    best = draw_detections(image, found(box, labels=[0]))
    assert both.getpixel((100, 150)) == best.getpixel((100, 150))


def test_the_caption_names_class_and_score():
    image = Image.new("RGB", (400, 300), "white")
    pictures = [
        draw_detections(image, found((100, 100, 200, 200), labels=[label])).tobytes()
        for label in (0, 1)
    ]
    other = Detections(np.array([[100, 100, 200, 200]]), np.array([0.55]), np.array([0]), NAMES)
    assert len({*pictures, draw_detections(image, other).tobytes()}) == 3


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (3000, 20)])
def test_any_picture_can_be_drawn_on(size):
    image = Image.new("RGB", size, "white")
    drawn = draw_detections(image, found((0, 0, *size), (0, 0, 0, 0), labels=[2, 1]))
    assert drawn.size == size
    assert changed(image, drawn) is not None


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_boxes_anywhere_inside_never_fail(data):
    width, height = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    xs = sorted(data.draw(st.tuples(*[st.floats(0, width, width=32)] * 2)))
    ys = sorted(data.draw(st.tuples(*[st.floats(0, height, width=32)] * 2)))
    image = Image.new("RGB", (width, height), "white")
    drawn = draw_detections(image, found((xs[0], ys[0], xs[1], ys[1])))
    assert drawn.size == image.size


def test_masks_are_tinted_where_they_are_and_neighbours_differ():
    image = Image.new("RGB", (100, 60), "white")
    masks = np.zeros((2, 60, 100), bool)
    masks[0, 20:30, 10:30] = masks[1, 20:30, 60:80] = True
    boxes = np.array([[5, 15, 40, 40], [55, 15, 90, 40]], np.float32)
    one_class = Detections(boxes, [0.9, 0.8], [0, 0], ("cell",), masks=masks)
    pixels = np.asarray(draw_detections(image, one_class)).astype(int)
    first, second = pixels[25, 20], pixels[25, 70]
    assert (first < 255).any()
    assert np.abs(first - second).sum() > 60
    assert (pixels[35, 20] == 255).all()  # in the box, outside the mask


def test_captions_that_would_bury_an_object_are_left_out():
    small = (100, 100, 110, 110), (100, 88, 112, 98)
    image = Image.new("RGB", (400, 300), "white")
    many = found(*small, (250, 100, 380, 250), labels=[0, 0, 1])

    def inked(captions: str) -> int:
        drawn = np.asarray(draw_detections(image, many, captions=captions))
        return int((drawn != 255).any(2).sum())

    assert inked("off") < inked("auto") < inked("on")
    large = found((250, 100, 380, 250), labels=[1])
    auto, on = (draw_detections(image, large, captions=how) for how in ("auto", "on"))
    assert auto.tobytes() == on.tobytes()


def test_lines_are_as_wide_as_asked_for():
    image = Image.new("RGB", (400, 300), "white")
    for width in (1, 5):
        drawn = draw_detections(
            image, found((100, 100, 200, 200)), captions="off", line_width=width
        )
        row = np.asarray(drawn)[150]
        assert (row != 255).any(1).sum() == 2 * width


def test_every_object_has_a_colour_of_its_own_if_asked_for_and_keeps_its_tracks():
    image = Image.new("RGB", (400, 300), "white")
    boxes = ((20, 100, 100, 200), (150, 100, 250, 200))

    def colours(objects: Detections, how: str) -> list[tuple[int, ...]]:
        pixels = np.asarray(draw_detections(image, objects, colour=how))
        return [tuple(pixels[150, int(box[0])]) for box in objects.boxes]

    first, second = colours(found(*boxes), "instance")
    assert first != second
    assert len(set(colours(found(*boxes), "class"))) == 1
    one, other = (replace(found(*boxes), tracks=tracks) for tracks in ([4, 7], [7, 4]))
    assert colours(one, "instance") == colours(other, "instance")[::-1]
    assert colours(replace(one, tracks=[4, 9]), "instance")[0] == colours(one, "instance")[0]


def test_masks_have_the_colours_of_their_boxes():
    image = Image.new("RGB", (100, 60), "white")
    masks = np.zeros((2, 60, 100), bool)
    masks[0, 20:30, 10:30] = masks[1, 20:30, 60:80] = True
    two = replace(found((5, 15, 40, 40), (55, 15, 90, 40), labels=[1, 1]), masks=masks)
    for how, alike in (("class", True), ("instance", False)):
        pixels = np.asarray(draw_detections(image, two, colour=how, captions="off"))
        assert (tuple(pixels[25, 20]) == tuple(pixels[25, 70])) == alike
