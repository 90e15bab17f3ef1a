"""Two-stage detectors with masks through the same verbs as all others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vovnet.errors import DataError, VovnetError
from vovnet.models.weights import load_detector
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import run_training

SIDE = 64


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Bright discs on noise, as COCO with polygons: six images to train, two to validate."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for split, count in (("train", 6), ("val", 2)):
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
            for centre in ((18, 20), (44, 42)):
                cx, cy, radius = *(centre + rng.integers(-4, 5, 2)), rng.integers(8, 13)
                pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 220
                ring = np.stack([cx + radius * np.cos(turn), cy + radius * np.sin(turn)], 1)
                box = [float(cx - radius), float(cy - radius), 2.0 * radius, 2.0 * radius]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                    | {"bbox": box, "segmentation": [ring.ravel().tolist()]}
                )
            name = f"{split}{number}.png"
            Image.fromarray(pixels).save(folder / name)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 1, "name": "cell"}]
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def recipe(cells: Path, **changes):
    values = {
        "model": "maskrcnn_lite-vovnet19_slim_dw",
        "data": (f"{cells}@train",),
        "val": f"{cells}@val",
        "epochs": 2,
        "batch": 3,
        "imgsz": SIDE,
        "regions": 8,
        "workers": 0,
        "amp": "off",
    }
    return recipe_from_dict(values | changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["maskrcnn_lite-vovnet19_slim_dw", "centermask_lite-vovnet19_slim_dw"]
)
def test_a_resumed_run_equals_the_unbroken_one(cells, tmp_path, model):
    regions = {"regions": 8 if model.startswith("maskrcnn") else None}
    whole = recipe(cells, model=model, **regions)
    row = run_training(whole, tmp_path / "whole")
    assert np.isfinite(row["loss_mask"])
    assert 0 <= row["mask_map_50"] <= 1

    class Stop(Exception):
        pass

    def stop(report, total):
        if report.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        run_training(whole, tmp_path / "broken", on_step=stop)
    run_training(whole, tmp_path / "broken", resume=True)
    one, other = (
        load_file(tmp_path / name / "weights" / "last.safetensors") for name in ("whole", "broken")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    detector = load_detector(tmp_path / "whole" / "weights" / "last.safetensors")
    found = detector.detect([Image.open(cells / "val1.png")], conf=0.0)[0]
    assert found.masks.shape == (len(found), SIDE, SIDE)
    if model.startswith("centermask"):
        assert found.mask_scores.shape == (len(found),)


def test_what_masks_cannot_do_is_said(cells, tmp_path, voc):
    with pytest.raises(VovnetError, match="choose zoom"):
        run_training(recipe(cells, augment="ssd"), tmp_path / "ssd")
    with pytest.raises(DataError, match="segmentations"):
        run_training(recipe(cells, data=(str(voc),), val=None), tmp_path / "voc")
    with pytest.raises(VovnetError, match="regions is for R-CNNs"):
        run_training(recipe(cells, model="vovdet_nano"), tmp_path / "nano")
