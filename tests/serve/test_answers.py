"""Which form an answer has, and masks one at a time."""

import numpy as np
import pytest

from vovnet.detect.found import Found, in_image
from vovnet.input_spec import Placement
from vovnet.serve.answers import objects, wanted_type
from vovnet.serve.refusal import Refusal
from vovnet.serve.service import Seen


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("image/*", "image/png"),
        ("image/*, image/png;q=0", "image/jpeg"),
        ("image/webp, image/jpeg;q=0.9, */*;q=0.1", "image/jpeg"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("text/html, */*;q=0.8", "application/json"),
    ],
)
def test_what_accept_asks_for(accept, kind):
    assert wanted_type(accept) == kind


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/png;q=x", ";", "image"])
def test_what_is_not_offered(accept):
    with pytest.raises(Refusal, match="is not offered"):
        wanted_type(accept)


def test_masks_one_at_a_time_are_those_of_all_at_once():
    rng = np.random.default_rng(0)
    low = rng.uniform(-20, 60, (12, 2))
    found = Found(
        np.concatenate([low, low + rng.uniform(1, 40, (12, 2))], 1).astype(np.float32),
        np.linspace(1, 0.1, 12, dtype=np.float32),
        np.arange(12) % 2,
        rng.random((12, 28, 28), dtype=np.float32),
        np.linspace(0.5, 0.2, 12, dtype=np.float32),
    )
    place = Placement(0.5, 0.5, 0.0, 4.0, 130, 150)
    wanted = in_image(found, place, ("one", "two")).to_dict()
    assert 0 < len(wanted) < 12  # some lie outside
    assert any(row["segmentation"]["counts"] for row in wanted)
    assert objects(Seen(found, place, 0.0, 0.0, 0.0), ("one", "two")) == wanted
