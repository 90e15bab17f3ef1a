"""One image in training: pixels with its objects, on its way through augmentation."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Mask:
    """One object's bitmap, height×width uint8, and the frame it fills, (x1, y1, x2, y2) in pixels.

    The frame moves with the image: only the bitmap's corners know where it lies, so an augmented
    mask costs four numbers (see `vovnet.losses.InstanceMasks`).
    """

    bitmap: np.ndarray
    frame: np.ndarray

    def within(self, width: float, height: float) -> "Mask":
        """What of the mask lies in an image of that size, to whole pixels of the bitmap."""
        if not self.bitmap.size:
            return self
        length = np.array(self.bitmap.shape[::-1])
        step = (self.frame[2:] - self.frame[:2]) / length
        limit = np.array([width, height], np.float32)
        first = np.round((0 - self.frame[:2]) / step).clip(0, length).astype(int)
        last = np.round((limit - self.frame[:2]) / step).clip(0, length).astype(int)
        start = self.frame[:2]
        frame = np.concatenate([start + first * step, start + last * step]).astype(np.float32)
        return Mask(self.bitmap[first[1] : last[1], first[0] : last[0]], frame)


@dataclass(frozen=True)
class Sample:
    """Pixels H×W×3 uint8 RGB; boxes N×4 float32 xyxy in pixels; labels N int64; N may be 0.

    `masks` has one `Mask` per object, or is None where nobody asked for masks; `scores` are a
    `Record`'s.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: tuple[Mask, ...] | None = None
    scores: np.ndarray | None = None

    def moved(
        self, pixels: np.ndarray, scale: tuple[float, float], offset: tuple[float, float]
    ) -> "Sample":
        """The sample around new pixels: every coordinate times `scale` plus `offset` (x, y)."""
        factor, shift = np.array(scale * 2, np.float32), np.array(offset * 2, np.float32)
        masks = self.masks and tuple(Mask(m.bitmap, m.frame * factor + shift) for m in self.masks)
        return replace(self, pixels=pixels, boxes=self.boxes * factor + shift, masks=masks)

    def kept(self, keep: np.ndarray) -> "Sample":
        """The objects where `keep` (N bool) is true."""
        masks = self.masks and tuple(m for m, k in zip(self.masks, keep, strict=True) if k)
        scores = None if self.scores is None else self.scores[keep]
        boxes, labels = self.boxes[keep], self.labels[keep]
        return replace(self, boxes=boxes, labels=labels, masks=masks, scores=scores)

    def cut_masks(self) -> "Sample":
        """The sample with its masks cut to the pixels, where others will lie beside them."""
        height, width = self.pixels.shape[:2]
        return replace(
            self, masks=self.masks and tuple(m.within(width, height) for m in self.masks)
        )

    def mirrored(self) -> "Sample":
        """Left and right exchanged."""
        return self._flipped(0, self.pixels.shape[1])

    def upside_down(self) -> "Sample":
        """Top and bottom exchanged."""
        return self._flipped(1, self.pixels.shape[0])

    def _flipped(self, axis: int, length: int) -> "Sample":
        """Mirrored along an axis (0: x, 1: y) of `length` pixels."""

        def flip(boxes: np.ndarray) -> np.ndarray:
            turned = boxes.copy()
            turned[..., axis] = length - boxes[..., axis + 2]
            turned[..., axis + 2] = length - boxes[..., axis]
            return turned

        masks = self.masks and tuple(
            Mask(np.flip(m.bitmap, 1 - axis), flip(m.frame)) for m in self.masks
        )
        pixels = np.flip(self.pixels, 1 - axis)
        return replace(self, pixels=pixels, boxes=flip(self.boxes), masks=masks)


def joined(pixels: np.ndarray, parts: list[Sample]) -> Sample:
    """The objects of several samples, already in the coordinates of `pixels`, as one sample."""
    masks = None
    if all(part.masks is not None for part in parts):
        masks = tuple(mask for part in parts for mask in part.masks or ())
    scores = None
    if any(part.scores is not None for part in parts):
        ones = (np.ones(len(part.labels), np.float32) for part in parts)
        rows = zip(parts, ones, strict=True)
        scores = np.concatenate([one if p.scores is None else p.scores for p, one in rows])
    boxes = np.concatenate([part.boxes for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Sample(pixels, boxes, labels, masks, scores)


def flipped(sample: Sample, mirrored: bool, upside_down: bool) -> Sample:
    """The sample turned either way, both, or not."""
    if mirrored:
        sample = sample.mirrored()
    return sample.upside_down() if upside_down else sample


def blended(one: Sample, other: Sample, weight: float) -> Sample:
    """Two samples of one size laid over each other, `one` with a weight in 0..1; all objects."""
    mean = one.pixels * np.float32(weight) + other.pixels * np.float32(1 - weight)
    return joined(np.rint(mean).astype(np.uint8), [one, other])
