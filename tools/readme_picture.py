"""Draw the README's picture: `vovnet predict` on photographs that may be shown, side by side.

python tools/readme_picture.py docs/detections.jpg
"""

import sys
from pathlib import Path

from PIL import Image

from vovnet.images import load_image
from vovnet.models.weights import load_detector
from vovnet.predict import draw_detections, expand_sources

# Public domain (astronaut) and CC0 (chelsea, camera), by scikit-image's documentation.
SOURCES = ("skimage:astronaut", "skimage:chelsea", "skimage:camera")
HEIGHT = 300


def strip(sources: tuple[str, ...], height: int) -> Image.Image:
    """The annotated photographs scaled to one height, next to each other."""
    detector = load_detector("vovdet_nano.voc", fuse=True)
    drawn = []
    for path in expand_sources(sources):
        image = load_image(path)
        picture = draw_detections(image, detector.detect([image])[0])
        drawn.append(picture.resize((round(picture.width * height / picture.height), height)))
    canvas = Image.new("RGB", (sum(p.width for p in drawn), height))
    left = 0
    for picture in drawn:
        canvas.paste(picture, (left, 0))
        left += picture.width
    return canvas


if __name__ == "__main__":
    strip(SOURCES, HEIGHT).save(Path(sys.argv[1]), quality=85)
