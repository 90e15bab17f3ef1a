"""What a state holds beside the weights."""

import pytest
import torch

from vovnet.models import create_detector
from vovnet.train.checkpoint import Progress, begin, load_state, save_state
from vovnet.train.recipe import recipe_from_dict


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_only_fp16_scales_its_losses_and_a_resumed_run_goes_on_with_the_scale(amp, tmp_path):
    values = {"model": "vovdet_nano", "data": ["a"], "lr": 0.01, "amp": amp, "optimizer": "sgd"}
    recipe = recipe_from_dict(values)

    def started():
        return begin(create_detector("vovdet_nano", ("a",)).network, recipe, torch.device("cpu"))

    learned = started()
    assert learned.scaler.is_enabled() == (amp == "fp16")
    assert learned.scaler.get_scale() == (2.0**16 if amp == "fp16" else 1.0)
    if amp == "fp16":
        learned.scaler.scale(torch.ones(()))  # it begins with its first use
        learned.scaler.update(2.0**9)
    save_state(tmp_path / "state.safetensors", Progress(epoch=1, step=7), learned, values)
    again = started()
    progress = load_state(tmp_path / "state.safetensors", again, "sgd")
    assert (progress.epoch, progress.step) == (1, 7)
    assert again.scaler.get_scale() == (2.0**9 if amp == "fp16" else 1.0)
