"""Every layout read from a real ONNX file gives the boxes that our own decoder finds."""

import numpy as np
import pytest
from PIL import Image

from vovnet.detect.found import Found
from vovnet.detect.layouts import LAYOUTS, fitting
from vovnet.detect.options import Options
from vovnet.detect.suppress import best_found, best_of
from vovnet.load import load_detector

HEIGHT, WIDTH, NAMES = 64, 96, ("ant", "bee", "cow")
STRIDES = (8, 16, 32)
PICTURE = Image.new("RGB", (WIDTH, HEIGHT), (90, 20, 200))


def cells(strides: tuple[int, ...] = STRIDES) -> np.ndarray:
    """Column, row and stride of every cell, in plain loops."""
    return np.array(
        [
            (x, y, stride)
            for stride in strides
            for y in range(HEIGHT // stride)
            for x in range(WIDTH // stride)
        ],
        np.float32,
    )


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    """Boxes of all cells, of whole halves of a pixel inside the picture, and scores of a few."""
    rng = np.random.default_rng(0)
    columns, rows, strides = cells().T
    middle = np.stack([(columns + 0.5) * strides, (rows + 0.5) * strides], -1)
    near = rng.integers(1, 6, (len(middle), 4)) * strides[:, None] / 2
    near[::2] = rng.integers(8, 14, (len(near[::2]), 4)) * strides[::2, None] / 2  # these overlap
    boxes = np.concatenate([middle - near[:, :2], middle + near[:, 2:]], -1)
    boxes = boxes.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
    scores = np.zeros((len(boxes), len(NAMES)), np.float32)
    chosen = rng.choice(len(boxes), 40, replace=False)
    scores[chosen, rng.integers(0, 3, 40)] = rng.permutation(np.linspace(0.3, 0.98, 40))
    return boxes, scores


@pytest.fixture(scope="module")
def expected(truth) -> Found:
    found = best_found(*truth, Options())
    assert 10 < len(found.scores) < 40  # something is suppressed, much is not
    return found


def middles(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def with_objectness(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Objectness a half or one, so that products are exact."""
    half = np.where(scores.max(1, keepdims=True) <= 0.5, 0.5, 1).astype(np.float32)
    return np.concatenate([boxes, half, scores / half], 1)[None]


def yolox(boxes, scores, found):
    grid = cells()
    wide = middles(boxes)
    centres = wide[:, :2] / grid[:, 2:] - grid[:, :2]
    sides = np.log(wide[:, 2:] / grid[:, 2:])
    return {"output": with_objectness(np.concatenate([centres, sides], 1), scores)}


def yolov5(boxes, scores, found):
    return {"output0": with_objectness(middles(boxes), scores)}


def yolov8(boxes, scores, found):
    return {"output0": np.concatenate([middles(boxes), scores], 1).T[None]}


def yolov8_seg(boxes, scores, found):
    """Each box's mask is the picture's left half, or with the other sign the right one."""
    left = np.where(np.arange(WIDTH // 4) < WIDTH // 8, 6, -6) * np.ones((HEIGHT // 4, 1))
    prototypes = np.stack([left, left * 0])[None].astype(np.float32)
    signs = np.stack([np.where(np.arange(len(boxes)) % 2, 1, -1), np.full(len(boxes), 9)], 1)
    columns = np.concatenate([middles(boxes), scores, signs], 1).T[None]
    return {"output0": columns.astype(np.float32), "output1": prototypes}


def end_to_end(boxes, scores, found):
    rows = np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], 1)
    padded = np.zeros((1, 300, 6), np.float32)
    padded[0, : len(rows)] = rows[::-1]  # in any order
    return {"output0": padded}


def nanodet(boxes, scores, found):
    return {"output": nanodet_rows(boxes, scores, cells(), 0.5)}


def nanodet_rows(boxes, scores, grid, middle):
    """Distances as odds on the two bins beside them."""
    points = (grid[:, :2] + middle) * grid[:, 2:]
    far = np.concatenate([points - boxes[:, :2], boxes[:, 2:] - points], 1) / grid[:, 2:]
    odds = np.maximum(0, 1 - np.abs(far[..., None] - np.arange(8)))
    with np.errstate(divide="ignore"):
        bins = np.log(odds).clip(-100).reshape(len(boxes), 32)
    return np.concatenate([scores, bins], 1)[None].astype(np.float32)


def fractions(boxes):
    return boxes / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)


def detr(boxes, scores, found):
    logits = np.full((len(found.scores), len(NAMES)), -20, np.float32)
    logits[np.arange(len(logits)), found.labels] = np.log(found.scores / (1 - found.scores))
    return {"pred_logits": logits[None], "pred_boxes": middles(fractions(found.boxes))[None]}


def detr_softmax(boxes, scores, found):
    """The rest of each query's odds is background, more than the class where that is unsure."""
    odds = np.full((len(found.scores), len(NAMES) + 1), 1e-9, np.float32)
    odds[np.arange(len(odds)), found.labels] = found.scores
    odds[:, -1] = 1 - odds[:, :-1].sum(1)
    return {"logits": np.log(odds)[None] + 3, "pred_boxes": middles(fractions(found.boxes))[None]}


def detr_postprocessed(boxes, scores, found):
    return {
        "labels": found.labels[None],
        "boxes": fractions(found.boxes)[None],  # and it multiplies by the size that it is told
        "scores": found.scores[None],
    }


def ssd(boxes, scores, found):
    background = 1 - scores.sum(1, keepdims=True)
    return {
        "scores": np.concatenate([background, scores], 1)[None],
        "boxes": fractions(boxes)[None],
    }


def torchvision(boxes, scores, found):
    return {"boxes": found.boxes, "labels": found.labels + 1, "scores": found.scores}


def tensorflow(boxes, scores, found):
    count = len(found.scores)
    rows = [fractions(found.boxes)[:, [1, 0, 3, 2]], found.labels + 1.0, found.scores]
    more = [np.ones((2, *row.shape[1:])) for row in rows]  # beyond the count: worth nothing
    whole = [np.concatenate(pair)[None].astype(np.float32) for pair in zip(rows, more, strict=True)]
    names = ("detection_boxes", "detection_classes", "detection_scores")
    return dict(zip(names, whole, strict=True)) | {"num": np.array([count], np.float32)}


SPEAKERS = {
    "yolox": yolox,
    "yolox_decoded": yolov5,
    "yolov5": yolov5,
    "yolov8": yolov8,
    "yolov8_seg": yolov8_seg,
    "end_to_end": end_to_end,
    "detr": detr,
    "detr_softmax": detr_softmax,
    "detr_postprocessed": detr_postprocessed,
    "nanodet": nanodet,
    "ssd": ssd,
    "torchvision": torchvision,
    "tensorflow": tensorflow,
}

DENSE = (
    "yolox",
    "yolox_decoded",
    "yolov5",
    "yolov8",
    "yolov8_seg",
    "nanodet",
    "ssd",
)  # overlaps are left


def description(layout: str, **more: object) -> dict:
    return {
        "input": {"height": HEIGHT, "width": WIDTH},
        "layout": layout,
        "names": [*NAMES],
        **more,
    }


def same(found, expected: Found) -> None:
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_every_layout_is_spoken():
    assert list(SPEAKERS) == list(LAYOUTS)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_finds_what_we_find(tmp_path, write_foreign, truth, expected, layout, runtime):
    pytest.importorskip(runtime)
    outputs = SPEAKERS[layout](*truth, expected)
    shape = (3, HEIGHT, WIDTH) if layout == "torchvision" else (1, 3, HEIGHT, WIDTH)
    path = tmp_path / "foreign.onnx"
    told = layout == "detr_postprocessed"
    write_foreign(path, outputs, description(layout), shape=shape, told=told)
    detector = load_detector(path, runtime=runtime, threads=1)
    assert (detector.name, detector.runtime, detector.names) == ("foreign", runtime, NAMES)
    one, two = detector.detect([PICTURE, PICTURE])
    same(one, expected)
    same(two, expected)
    assert layout in fitting(outputs, (HEIGHT, WIDTH), 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_mean_the_same(tmp_path, write_foreign, truth, expected, layout):
    outputs = SPEAKERS[layout](*truth, expected)
    shape = (3, HEIGHT, WIDTH) if layout == "torchvision" else (1, 3, HEIGHT, WIDTH)
    path, told = tmp_path / "foreign.onnx", layout == "detr_postprocessed"
    write_foreign(path, outputs, description(layout), shape=shape, told=told)
    detector = load_detector(path, threads=1)
    for options in ({"conf": 0.7}, {"max_det": 3}, {"classes": (1,)}, {"agnostic": True}):
        mine = Options(**options)
        finished = layout not in DENSE and options.get("agnostic")
        known = best_of(expected, mine) if finished else best_found(*truth, mine)
        same(detector.detect(PICTURE, **options), known)


def test_nanodet_plus_measures_from_corners(tmp_path, write_foreign):
    grid = cells((8, 16, 32, 64))
    grid = np.concatenate([grid, [[1, 0, 64]]]).astype(np.float32)  # 96 / 64 is rounded up
    corner = grid[:, :2] * grid[:, 2:]
    rows = np.concatenate([corner, corner + grid[:, 2:]], 1)
    scores = np.zeros((len(grid), 3), np.float32)
    scores[17, 2] = 0.75
    output = nanodet_rows(rows, scores, grid, 0)
    path = write_foreign(tmp_path / "plus.onnx", {"output": output}, description("nanodet"))
    same(load_detector(path).detect(PICTURE), Found(rows[[17]], scores[[17], 2], np.array([2])))


def test_masks_of_prototypes(tmp_path, write_foreign, truth):
    """Half of the picture, cut to each box, whichever half it is."""
    boxes, scores = truth
    outputs = yolov8_seg(boxes, scores, None)
    path = write_foreign(tmp_path / "seg.onnx", outputs, description("yolov8_seg"))
    detector = load_detector(path, threads=1)
    assert detector.masks
    found = detector.detect(PICTURE)
    assert found.masks.shape == (len(found), HEIGHT, WIDTH)
    halves = 0
    for box, score, mask in zip(found.boxes, found.scores, found.masks, strict=True):
        [number] = (np.abs(scores.max(1) - score) < 1e-6).nonzero()[0]
        inside = np.zeros((HEIGHT, WIDTH), bool)
        x1, y1, x2, y2 = np.round(box).astype(int)
        inside[y1:y2, x1:x2] = True
        half = np.zeros_like(inside)
        half[:, : WIDTH // 2] = True
        wanted = inside & (half if number % 2 else ~half)
        away = np.abs(np.arange(WIDTH) + 0.5 - WIDTH / 2) > 4  # a cell of the prototypes
        edge = np.zeros_like(inside)
        edge[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = True
        sure = (edge | ~inside) & away
        sure[:, [max(x1 - 1, 0), min(x2, WIDTH - 1)]] = False
        sure[[max(y1 - 1, 0), min(y2, HEIGHT - 1)]] = False
        assert (mask[sure] == wanted[sure]).all()
        halves += bool(wanted.any() and (inside & ~wanted).any())
    assert halves >= 3  # boxes across the middle
    assert detector.detect(PICTURE, conf=0.999).masks.shape == (0, HEIGHT, WIDTH)


def test_a_height_that_no_stride_divides_is_rounded_up(tmp_path, write_foreign):
    """40×96 pixels have 2 rows of stride 32, and 1 of stride 64."""
    boxes = np.array([[64, 32, 96, 40]], np.float32)
    for layout, strides in (("yolox", (8, 16, 32)), ("nanodet", (8, 16, 32, 64))):
        grid = np.array(
            [(x, y, s) for s in strides for y in range(-(-40 // s)) for x in range(-(-96 // s))],
            np.float32,
        )
        place = [*map(tuple, grid)].index((2, 1, 32))  # in the second row, of 8 pixels
        rows = np.repeat(boxes, len(grid), 0)
        scores = np.zeros((len(grid), 3), np.float32)
        scores[place, 1] = 0.75
        if layout == "yolox":
            wide = middles(rows)
            centres = wide[:, :2] / grid[:, 2:] - grid[:, :2]
            sides = np.log(wide[:, 2:] / grid[:, 2:])
            output = with_objectness(np.concatenate([centres, sides], 1), scores)
        else:
            rows = np.concatenate([grid[:, :2] * grid[:, 2:]] * 2, 1)
            rows[place] = boxes[0]
            output = nanodet_rows(rows, scores, grid, 0)
        told = description(layout) | {"input": {"height": 40, "width": 96, "fit": "warp"}}
        path = write_foreign(
            tmp_path / f"{layout}.onnx", {"output": output}, told, shape=(1, 3, 40, 96)
        )
        [found] = load_detector(path).find(np.zeros((1, 40, 96, 3), np.uint8), Options())
        same(found, Found(boxes, np.array([0.75]), np.array([1])))


def test_a_background_elsewhere(tmp_path, write_foreign, truth, expected):
    boxes, scores = truth
    last = np.concatenate([scores, 1 - scores.sum(1, keepdims=True)], 1)[None]
    for name, columns in (("last", last), ("none", scores[None])):
        outputs = {"boxes": fractions(boxes)[None], "scores": columns}
        how = description("ssd", background=name)
        path = write_foreign(tmp_path / f"{name}.onnx", outputs, how)
        same(load_detector(path).detect(PICTURE), expected)


def test_labels_without_a_name_are_left_out(tmp_path, write_foreign, truth, expected):
    outputs = end_to_end(*truth, expected)
    outputs["output0"][0, -1] = [0, 0, 9, 9, 0.99, 3]
    path = write_foreign(tmp_path / "more.onnx", outputs, description("end_to_end"))
    same(load_detector(path).detect(PICTURE), expected)


def test_a_box_that_is_not_finite_is_none(tmp_path, write_foreign, truth, expected):
    outputs = yolox(*truth, expected)
    idle = (truth[1] == 0).all(1).nonzero()[0]
    outputs["output"][0, idle[0]] = [0, 0, 1e9, 1e9, 1, 1, 0, 0]
    outputs["output"][0, idle[1]] = np.nan
    path = write_foreign(tmp_path / "wild.onnx", outputs, description("yolox"))
    same(load_detector(path).detect(PICTURE), expected)


def test_a_label_of_the_background_is_no_detection(tmp_path, write_foreign, truth, expected):
    outputs = torchvision(*truth, expected)
    more = {"boxes": [[0, 0, 9, 9]], "labels": [0], "scores": [0.99]}
    outputs = {k: np.concatenate([x, np.array(more[k], x.dtype)]) for k, x in outputs.items()}
    path = tmp_path / "background.onnx"
    write_foreign(path, outputs, description("torchvision"), shape=(3, HEIGHT, WIDTH))
    same(load_detector(path).detect(PICTURE), expected)


def test_outputs_in_another_order(tmp_path, write_foreign, truth, expected):
    for layout in ("tensorflow", "detr_postprocessed", "detr", "detr_softmax", "ssd"):
        outputs = SPEAKERS[layout](*truth, expected)
        turned = dict(reversed(outputs.items()))
        how, told = description(layout), layout == "detr_postprocessed"
        path = write_foreign(tmp_path / f"{layout}.onnx", turned, how, told=told)
        same(load_detector(path).detect(PICTURE), expected)


def test_a_finished_box_that_is_not_finite_is_none(tmp_path, write_foreign, truth, expected):
    outputs = end_to_end(*truth, expected)
    outputs["output0"][0, -1] = [0, 0, np.inf, 9, 0.99, 1]
    path = write_foreign(tmp_path / "wild.onnx", outputs, description("end_to_end"))
    same(load_detector(path).detect(PICTURE), expected)
    same(load_detector(path).detect(PICTURE, max_det=1), best_of(expected, Options(max_det=1)))
