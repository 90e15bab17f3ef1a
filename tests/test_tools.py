"""What maintainers make weights with."""

import runpy
from pathlib import Path

import torch

from vovnet.data.open import open_dataset
from vovnet.images import open_image
from vovnet.models.weights import load_detector

TOOLS = Path(__file__).parents[1] / "tools"


def test_statistics_of_a_mixture_are_those_of_the_images(voc, nano):
    detector = load_detector(nano)
    stem = detector.network.backbone.stem[0]
    stem.bn.running_mean.fill_(7.0)
    runpy.run_path(str(TOOLS / "average_weights.py"))["estimate_statistics"](
        detector, [f"{voc}@train"], 8
    )
    images = [open_image(record.path)[0] for record in open_dataset(voc, "train").records]
    pixels = [torch.from_numpy(detector.input_spec.prepare(image)[0]) for image in images]
    with torch.no_grad():
        seen = stem.conv(detector.normalize(torch.stack(pixels)))
    assert not stem.bn.training
    torch.testing.assert_close(stem.bn.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.bn.running_var, seen.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
