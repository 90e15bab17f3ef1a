"""Pictures of textured boards with small defects, to train on: what an inspection line sees.

    python benchmarks/small_defects.py FOLDER [--train 1000] [--val 200] [--seed 0]

Writes a YOLO data set: FOLDER/data.yaml, images/ and labels/ for train and val. A picture has
640×640 pixels and up to six defects of six kinds, 20 to 40 pixels long, of low contrast; one in ten
has none. Then, with nothing else said:

    vovnet train --data FOLDER --minutes 10
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 640
Draw = Callable[[ImageDraw.ImageDraw, np.random.Generator, int, int], None]


def board(rng: np.random.Generator) -> Image.Image:
    """A board of green, brown or grey, with fine grain, slow shading and straight tracks."""
    base = np.array([(46, 92, 58), (112, 84, 58), (104, 108, 112)][rng.integers(3)], np.float32)
    coarse = Image.fromarray(rng.normal(128, 40, (9, 9)).clip(0, 255).astype(np.uint8))
    shade = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) - 128
    grain = rng.normal(0, 9, (SIDE, SIDE, 1)).astype(np.float32)
    pixels = base + 0.25 * shade[..., None] + grain
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(6, 16)):
        at, width = int(rng.integers(SIDE)), int(rng.integers(2, 7))
        line = [(0, at), (SIDE, at)] if rng.random() < 0.5 else [(at, 0), (at, SIDE)]
        draw.line(line, fill=tuple(int(v) for v in (base * 1.25).clip(0, 255)), width=width)
    return image


def scratch(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A thin bright line from one corner of the box to the other."""
    ends = [(0, 0), (width, height)] if rng.random() < 0.5 else [(0, height), (width, 0)]
    draw.line(ends, fill=150, width=2)


def crack(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A thin dark line that turns."""
    xs = np.linspace(0, width, 6)
    ys = np.linspace(0, height, 6) + rng.normal(0, height / 8, 6)
    draw.line(
        [(x, min(max(y, 0), height)) for x, y in zip(xs, ys, strict=True)], fill=-120, width=2
    )


def hole(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A dark disc."""
    draw.ellipse([0, 0, width, height], fill=-90)


def bubble(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A bright ring."""
    draw.ellipse([0, 0, width, height], outline=100, width=3)


def stain(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """Several soft dark discs that overlap."""
    for _ in range(5):
        x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
        draw.ellipse([x, y, x + width / 2, y + height / 2], fill=-45)


def chip(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """A bright triangle."""
    apex = (float(rng.uniform(0, width)), 0.0)
    draw.polygon([apex, (0, height), (width, height)], fill=80)


KINDS: dict[str, Draw] = {
    draw.__name__: draw for draw in (scratch, crack, hole, bubble, stain, chip)
}


def add_defect(
    pixels: np.ndarray, rng: np.random.Generator, draw: Draw, box: tuple[int, int, int, int]
) -> None:
    """Add a defect's difference of brightness to the pixels within a box (x, y, width, height)."""
    x, y, width, height = box
    layer = Image.new("I", (width, height), 0)  # signed: defects are brighter or darker
    draw(ImageDraw.Draw(layer), rng, width - 1, height - 1)
    change = np.asarray(layer, np.float32)
    soft = Image.fromarray((change / 2 + 128).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.7)
    )
    strength = rng.uniform(0.45, 1.0)
    pixels[y : y + height, x : x + width] += (
        strength * 2 * (np.asarray(soft, np.float32) - 128)[..., None]
    )


def picture(rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """A board and its defects as YOLO's lines: class, centre and size in shares of the picture."""
    pixels = np.asarray(board(rng), np.float32).copy()
    lines, taken = [], np.zeros((SIDE, SIDE), bool)
    for _ in range(0 if rng.random() < 0.1 else rng.integers(1, 7)):
        kind = int(rng.integers(len(KINDS)))
        width, height = (int(v) for v in rng.integers(20, 41, 2))
        x, y = int(rng.integers(SIDE - width)), int(rng.integers(SIDE - height))
        place = np.s_[y : y + height, x : x + width]
        if taken[place].any():
            continue
        taken[place] = True
        add_defect(pixels, rng, list(KINDS.values())[kind], (x, y, width, height))
        values = (x + width / 2, y + height / 2, width, height)
        lines.append(f"{kind} " + " ".join(f"{v / SIDE:.6f}" for v in values))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), lines


def write(folder: Path, counts: dict[str, int], seed: int) -> None:
    """The data set: `counts` pictures of each split."""
    for number, (split, count) in enumerate(counts.items()):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, lines = picture(np.random.default_rng((seed, number, i)))
            image.save(folder / "images" / split / f"{i:04d}.jpg", quality=92)
            (folder / "labels" / split / f"{i:04d}.txt").write_text(
                "".join(f"{s}\n" for s in lines)
            )
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(KINDS))
    splits = "".join(f"{split}: images/{split}\n" for split in counts)
    (folder / "data.yaml").write_text(f"path: .\n{splits}names:\n{names}")


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.folder, {"train": given.train, "val": given.val}, given.seed)


if __name__ == "__main__":
    main()
