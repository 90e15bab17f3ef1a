"""Seconds and memory that opening a large data set takes, in each layout.

    python benchmarks/open_speed.py [--images 100000] [--boxes 5] [--work /tmp/open_speed]

The sets are made once below --work: one small picture many times, with random boxes. Each is
opened in a process of its own, so that the peak is its own. Prints CSV: processor seconds, and the
peak of resident memory above that of a process that only imports the package.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
OPEN = """
import sys, time
from vovnet.data.open import open_dataset

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before, began = peak(), time.process_time()
data = open_dataset(sys.argv[1], "train")
seconds = time.process_time() - began
boxes = sum(len(record.boxes) for record in data.records)
print(len(data), boxes, round(seconds, 2), round((peak() - before) / 1024))
"""


def boxes(images: int, each: int) -> np.ndarray:
    """Whole pixels, xyxy: images×each×4."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, SIDE - 16, (images, each, 2))
    return np.concatenate((corners, corners + rng.integers(4, 16, (images, each, 2))), 2)


def write_pictures(folder: Path, images: int) -> None:
    """The same picture under many names."""
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 90)).save(buffer, "JPEG")
    for number in range(images):
        (folder / f"{number:06d}.jpg").write_bytes(buffer.getvalue())


def make_voc(root: Path, drawn: np.ndarray) -> None:
    """PASCAL's folders."""
    write_pictures(root / "JPEGImages", len(drawn))
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, objects in enumerate(drawn.tolist()):
        things = "".join(
            f"<object><name>cat</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2 in objects
        )
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height></size>"
        text = f"<annotation>{size}{things}</annotation>"
        (root / "Annotations" / f"{number:06d}.xml").write_text(text)
    stems = "".join(f"{number:06d}\n" for number in range(len(drawn)))
    (root / "ImageSets" / "Main" / "train.txt").write_text(stems)


def make_coco(root: Path, drawn: np.ndarray) -> None:
    """One JSON file."""
    write_pictures(root / "images", len(drawn))
    images = [
        {"id": number, "file_name": f"{number:06d}.jpg", "width": SIDE, "height": SIDE}
        for number in range(len(drawn))
    ]
    things = [
        {"image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for number, objects in enumerate(drawn.tolist())
        for x1, y1, x2, y2 in objects
    ]
    content = {
        "images": images,
        "annotations": [{"id": i} | thing for i, thing in enumerate(things, start=1)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "instances_train.json").write_text(json.dumps(content))


def make_yolo(root: Path, drawn: np.ndarray) -> None:
    """A label file for each picture."""
    write_pictures(root / "images" / "train", len(drawn))
    (root / "labels" / "train").mkdir(parents=True)
    for number, objects in enumerate((drawn / SIDE).tolist()):
        lines = [
            f"0 {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n" for x1, y1, x2, y2 in objects
        ]
        (root / "labels" / "train" / f"{number:06d}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\n")


MAKERS = {"voc": make_voc, "coco": make_coco, "yolo": make_yolo}


def main() -> int:
    """Print a line for each layout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=5, help="in every image")
    parser.add_argument("--work", type=Path, default=Path("/tmp/open_speed"))
    given = parser.parse_args()
    drawn = boxes(given.images, given.boxes)
    print("layout,images,boxes,seconds,peak MB")
    for layout, make in MAKERS.items():
        root = given.work / f"{layout}_{given.images}_{given.boxes}"
        if not root.is_dir():
            part = root.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            make(part, drawn)
            part.rename(root)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(root)], capture_output=True, text=True, check=True
        )
        print(layout, *done.stdout.split(), sep=",", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
