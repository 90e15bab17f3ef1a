from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from vovnet.boxes.anchors import anchor_points, prior_boxes
from vovnet.detect.options import Options
from vovnet.detect.pictures import Picture
from vovnet.detections import Detections
from vovnet.input_spec import InputSpec
from vovnet.losses import Target
from vovnet.models import create_detector
from vovnet.models.detector import Detector, PointDecoder, PriorDecoder
from vovnet.models.dsod import PriorOutput, prior_levels
from vovnet.models.vovdet import VoVDetOutput
from vovnet.models.weights import load_detector
from vovnet.predict import draw_detections

STRIDES = (8, 16, 32)
SIZES = [(40, 30), (300, 20), (1, 1), (64, 64), (7, 500)]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


def small_detector(name: str) -> Detector:
    torch.manual_seed(0)
    detector = create_detector(name, ("a", "b", "c")).eval()
    if name == "vovdet_nano":
        detector.input_spec = detector.input_spec.with_side(64, name)
    return detector


@pytest.mark.parametrize(("name", "conf"), [("vovdet_nano", 0.009), ("dsod300-vovnet27_slim", 0.2)])
def test_detect_stays_inside_every_image(name, conf):
    detector = small_detector(name)
    images = pictures()
    results = detector.detect(images, conf=conf)
    assert len(results) == len(images)
    for image, found in zip(images, results, strict=True):
        assert isinstance(found, Detections)
        assert found.names == ("a", "b", "c")
        assert found.image_size == (image.height, image.width)
        assert 0 < len(found) <= 300
        assert (found.scores > conf).all()
        assert (np.diff(found.scores) <= 0).all()
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
        assert found.boxes.min() >= 0
        assert (found.boxes <= [image.width, image.height] * 2).all()
    assert detector.detect(images[:1], conf=1.0)[0].boxes.shape == (0, 4)


def test_a_batch_gives_what_single_images_give():
    detector = small_detector("vovdet_nano")
    images = pictures()
    together = detector.detect(images, conf=0.009)
    for image, found in zip(images, together, strict=True):
        alone = detector.detect([image], conf=0.009)[0]
        # Equal up to rounding: near-ties may come in another order, so compare as sets.
        assert abs(len(alone) - len(found)) <= 2
        np.testing.assert_allclose(alone.scores[:20], found.scores[:20], rtol=1e-4)


def test_training_works_after_detecting():
    """`detect` runs in inference mode; what it leaves behind must not enter a gradient."""
    anchor_points.cache_clear()
    detector = small_detector("vovdet_nano")
    detector.detect(pictures()[:1])
    target = Target(torch.tensor([[5.0, 5.0, 40.0, 50.0]]), torch.tensor([1]))
    outputs = detector(torch.zeros(1, 3, 64, 64))
    sum(detector.loss(outputs, [target], (64, 64)).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def point_outputs(batch: int, height: int, width: int) -> tuple[VoVDetOutput, torch.Tensor]:
    points = []
    for stride in STRIDES:
        for row in range(height // stride):
            for column in range(width // stride):
                points.append(((column + 0.5) * stride, (row + 0.5) * stride, stride))
    outputs = VoVDetOutput(
        torch.full((batch, len(points), 3), -8.0), torch.ones(batch, len(points), 4)
    )
    return outputs, torch.tensor(points)


def test_point_decoder_finds_what_was_planted():
    outputs, points = point_outputs(2, 64, 96)
    # The second level (8×12 = 96 points before it), row 1, column 4: centre (72, 24), stride 16.
    planted = 96 + 1 * 6 + 4
    assert points[planted].tolist() == [72, 24, 16]
    outputs.class_logits[1, planted, 2] = 3.0
    outputs.distances[1, planted] = torch.tensor([1.0, 0.5, 0.25, 2.0])
    none, found = PointDecoder(STRIDES)(outputs, (64, 96), Options(0.5, 0.6))
    assert none.boxes.shape == (0, 4)
    assert found.boxes.tolist() == [[56.0, 16.0, 76.0, 56.0]]
    assert found.scores.tolist() == pytest.approx([0.9525741])  # 1 / (1 + e^-3)
    assert found.labels.tolist() == [2]


def test_point_decoder_thresholds():
    outputs, points = point_outputs(1, 64, 96)
    outputs.class_logits[0, 10] = torch.tensor([0.0, -1.0, -8.0])  # 0.5 and 0.2689
    outputs.class_logits[0, 11, 0] = -0.5  # 0.3775; beside it, half of it common: IoU 1/3
    assert (points[11] - points[10]).tolist() == [8, 0, 0]
    decode = PointDecoder(STRIDES)

    def labels(conf: float, iou: float) -> list[int]:
        return decode(outputs, (64, 96), Options(conf, iou))[0].labels.tolist()

    assert labels(0.2, 0.6) == [0, 0, 1]
    assert labels(0.2, 0.3) == [0, 1]  # the neighbour is suppressed; another class is not
    assert labels(0.3, 0.6) == [0, 0]
    assert labels(0.45, 0.6) == [0]
    assert labels(0.5, 0.6) == []  # "above" leaves out equal


def test_prior_decoder_finds_what_was_planted():
    priors = prior_boxes(prior_levels((37, 18, 9, 5, 3, 2)))
    outputs = PriorOutput(torch.zeros(2, len(priors), 4), torch.zeros(2, len(priors), 4))
    outputs.class_logits[..., 0] = 9.0
    # The third map's (9×9, 32 pixels) row 4, column 2, first prior: a square of 111 at (80, 144).
    planted = 37 * 37 * 4 + 18 * 18 * 6 + (4 * 9 + 2) * 6
    outputs.class_logits[0, planted] = torch.tensor([0.0, 0.0, 5.0, 0.0])
    # A shift of 0.1 · 111 right, the width times e^(0.2 · 2), the height as it is.
    outputs.offsets[0, planted] = torch.tensor([1.0, 0.0, 2.0, 0.0])
    found, none = PriorDecoder(priors)(outputs, (300, 300), Options(0.5, 0.45))
    assert none.boxes.shape == (0, 4)
    half = 111 * np.exp(0.4) / 2
    expected = [91.1 - half, 144 - 55.5, 91.1 + half, 144 + 55.5]
    assert found.boxes[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert found.scores.tolist() == pytest.approx([np.exp(5) / (np.exp(5) + 3)])
    assert found.labels.tolist() == [1]  # column 2, the background taken off


def test_half_precision_outputs_decode_to_float32():
    outputs, _ = point_outputs(1, 64, 96)
    outputs.class_logits[0, 5, 0] = 3.0
    half = VoVDetOutput(*(t.bfloat16() for t in outputs))
    found = PointDecoder(STRIDES)(half, (64, 96), Options(0.5, 0.6))[0]
    assert (found.boxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert found.boxes.tolist() == [[36.0, -4.0, 52.0, 12.0]]


class Planted(nn.Module):
    """A network that sees the same one box, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        outputs, _ = point_outputs(len(images), *images.shape[2:])
        outputs.class_logits[:, 33, 1] = 4.0  # row 4, column 1 of the finest level: (12, 36)
        outputs.distances[:, 33] = torch.tensor([0.5, 2.0, 3.5, 1.0])
        return outputs


class Above(Planted):
    """The same box, 20 pixels higher: rows 0 to 24."""

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        outputs = super().forward(images)
        outputs.distances[:, 33, 1::2] = torch.tensor([4.5, -1.5])
        return outputs


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [  # in the 64×64 input the box is (8, 20, 40, 44)
        ("letterbox", (200, 100), [25.0, 12.5, 125.0, 87.5]),  # scale 0.32, 16 rows above
        ("letterbox", (32, 32), [4.0, 10.0, 20.0, 22.0]),
        ("letterbox", (100, 200), [0.0, 62.5, 75.0, 137.5]),  # cut at the left of the image
        ("warp", (128, 32), [16.0, 10.0, 80.0, 22.0]),
    ],
)
def test_boxes_come_back_in_pixels_of_the_image(fit, size, expected):
    spec = InputSpec((64, 64), fit, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    detector = Detector("planted", Planted(), None, PointDecoder(STRIDES), spec, ("a", "b")).eval()
    (found,) = detector.detect([Image.new("RGB", size)])
    assert found.boxes[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert found.labels.tolist() == [1]
    assert found.to_dict()[0]["label"] == "b"


def test_what_lies_outside_the_image_is_not_told():
    spec = InputSpec((64, 64), "letterbox", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    detector = Detector("planted", Planted(), None, PointDecoder(STRIDES), spec, ("a", "b")).eval()
    (found,) = detector.detect([Image.new("RGB", (64, 8))])  # rows 28 to 36 show it
    assert found.boxes.tolist() == [[8, 0, 40, 8]]
    (found,) = detector.detect([Image.new("RGB", (4, 64))])  # columns 30 to 34
    assert found.boxes.tolist() == [[0, 20, 4, 44]]
    (found,) = detector.detect([Image.new("RGB", (64, 64))] * 1)
    assert len(found) == 1
    wide = Detector("planted", Above(), None, PointDecoder(STRIDES), spec, ("a", "b")).eval()
    (found,) = wide.detect([Image.new("RGB", (64, 8))])
    assert len(found) == 0


def test_training_mode_is_refused():
    """Batch statistics would change the weights' norms, and the answers with them."""
    with pytest.raises(ValueError, match="eval"):
        small_detector("vovdet_nano").train().detect(pictures())


def test_a_picture_decoded_smaller_gives_boxes_of_the_whole():
    detector = small_detector("vovdet_nano")
    image = pictures()[0]
    half = image.resize((image.width // 2, image.height // 2))
    whole_size = (2 * half.height, 2 * half.width)
    small = detector.detect(half, conf=0.009)
    whole = detector.detect(Picture(half, whole_size), conf=0.009)
    assert whole.image_size == whole_size
    np.testing.assert_allclose(whole.boxes, 2 * small.boxes, atol=1e-3)


@pytest.mark.parametrize("name", ["vovdet_nano", "dsod300-vovnet27_slim"])  # letterbox, warp
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_seen_as_exif_says_that_it_is_displayed(tmp_path, name, orientation):
    detector = small_detector(name)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures()[4].save(tmp_path / "photo.png", exif=exif)
    photo = Image.open(tmp_path / "photo.png").convert("RGB")
    displayed = ImageOps.exif_transpose(photo)
    bare = Image.fromarray(np.asarray(displayed))
    expected, *others = (detector.detect([i], conf=0.009)[0] for i in (bare, photo, displayed))
    assert expected.image_size == ((7, 500) if orientation >= 5 else (500, 7))
    assert len(expected) > 0
    for found in others:
        assert found.image_size == expected.image_size
        assert np.array_equal(found.boxes, expected.boxes)
        assert np.array_equal(found.scores, expected.scores)
    drawn = [draw_detections(image, expected) for image in (bare, photo, displayed)]
    assert len({(picture.size, picture.tobytes()) for picture in drawn}) == 1


def test_what_two_devices_find_is_compared_box_by_box(photographs, compare_found):
    """As tests/test_gpu.py does: here the other device is the CPU with fused, channels-last
    weights, whose sums round otherwise."""
    one = load_detector("vovdet_nano.voc").detect(photographs, conf=0.01)
    other = load_detector("vovdet_nano.voc", fuse=True).to(memory_format=torch.channels_last)
    two = other.detect(photographs, conf=0.01)
    for found, twin in zip(one, two, strict=True):
        assert len(found)
        assert [*found.boxes.flat, *found.scores] != [*twin.boxes.flat, *twin.scores]
        compare_found(found, twin)
        compare_found(found, found)
    found = max(one, key=len)
    for field, change in (("boxes", [0, 0, 0, 2]), ("labels", 1), ("scores", 0.01)):
        wrong = getattr(found, field).copy()
        wrong[-1] += np.array(change, wrong.dtype)
        with pytest.raises(AssertionError, match="of the first alone"):
            compare_found(found, replace(found, **{field: wrong}))
    fewer = replace(found, boxes=found.boxes[1:], scores=found.scores[1:], labels=found.labels[1:])
    with pytest.raises(AssertionError):
        compare_found(found, fewer)
