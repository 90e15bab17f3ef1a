"""What the doctor says of pixels of more than 8 bits."""

from pathlib import Path

import numpy as np
from PIL import Image

from vovnet.data.doctor import examine
from vovnet.data.open import open_dataset


def annotated(root: Path) -> None:
    """A VOC folder that lacks its picture yet."""
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir()
    (root / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>21</xmin><ymin>31</ymin>"
        "<xmax>80</xmax><ymax>90</ymax></bndbox></object></annotation>"
    )


def test_the_doctor_says_how_deep_pixels_are_read(tmp_path):
    annotated(tmp_path)
    levels = (np.arange(10_000, dtype=np.uint16) * 6).reshape(100, 100)
    Image.fromarray(levels).save(tmp_path / "JPEGImages" / "a.png")
    told = [f for f in examine(tmp_path, workers=1).report.findings if f.id == "VD111"]
    assert [f.what for f in told] == [
        "16 bits a sample, of which the upper 8 are used: 65535 is white"
    ]
    assert len(open_dataset(tmp_path)) == 1


def test_the_doctor_leaves_out_pixels_whose_white_nobody_knows(tmp_path):
    annotated(tmp_path)
    levels = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    Image.fromarray(levels).save(tmp_path / "JPEGImages" / "a.tif")
    for pixels in (True, False):
        report = examine(tmp_path, workers=1, pixels=pixels).report
        assert "VD119" in report.counts
        assert "VD104" not in report.counts
