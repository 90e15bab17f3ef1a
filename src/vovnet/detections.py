"""The result type: what a detector found in one image, and its conversions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.images import load_image
from vovnet.images.orientation import upright


# eq=False: comparing arrays gives arrays, so a generated __eq__ could only raise.
@dataclass(frozen=True, eq=False)
class Detections:
    """The N objects found in one image.

    `boxes` is N×4 float32 xyxy in pixels of the original image, continuous coordinates (the whole
    of a W×H image is (0, 0, W, H)); `scores` N float32; `labels` N int64, 0-based into `names`;
    `masks` N×H×W bool or None; `mask_scores` N float32 where masks have scores of their own (mask
    scoring); `image_size` (height, width); `tracks` N int64, numbers that objects keep through a
    video, where they are followed. Arrays are converted to these types.

    Raises ValueError for shapes that do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None = None
    image_size: tuple[int, int] | None = None
    path: Path | None = None
    mask_scores: np.ndarray | None = None
    tracks: np.ndarray | None = None

    def __post_init__(self) -> None:
        arrays = {
            **dict.fromkeys(("boxes", "scores", "mask_scores"), np.float32),
            **dict.fromkeys(("labels", "tracks"), np.int64),
            "masks": np.bool_,
        }
        for name, dtype in arrays.items():
            if (value := self.__dict__[name]) is not None:
                object.__setattr__(self, name, np.asarray(value, dtype))
        object.__setattr__(self, "names", tuple(self.names))
        self._check()

    def _check(self) -> None:
        count = len(self.scores) if self.scores.ndim else 0
        if self.scores.shape != (count,):
            raise ValueError(f"scores must be a vector, not {self.scores.shape}")
        if self.labels.shape != (count,):
            raise ValueError(f"labels must be ({count},) like scores, not {self.labels.shape}")
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be ({count}, 4), not {self.boxes.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != count):
            raise ValueError(f"masks must be ({count}, H, W), not {self.masks.shape}")
        if self.mask_scores is not None and self.mask_scores.shape != (count,):
            raise ValueError(f"mask_scores must be ({count},) like scores")
        if self.tracks is not None and self.tracks.shape != (count,):
            raise ValueError(f"tracks must be ({count},) like scores")
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.names):
            raise ValueError(f"labels must lie in 0..{len(self.names) - 1}, the indices of names")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | np.ndarray | list[int]) -> "Detections":
        """The chosen objects, as `Detections`: by mask, slice, indices, or one index."""
        if isinstance(index, int | np.integer):
            index = [int(index)]
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            masks=None if self.masks is None else self.masks[index],
            mask_scores=None if self.mask_scores is None else self.mask_scores[index],
            tracks=None if self.tracks is None else self.tracks[index],
        )

    def to_dict(self) -> list[dict[str, Any]]:
        """The Hugging Face shape: [{"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"}}].

        Plain Python floats in pixels of the original image. With masks every object has a
        "segmentation" too, COCO's compressed RLE {"size": [height, width], "counts"}; with scores
        of their own a "mask_score", followed through a video a "track".
        """
        objects: list[dict[str, Any]] = [
            {
                "label": self.names[label],
                "score": score,
                "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
            }
            for label, score, box in self._rows()
        ]
        for one, mask in zip(objects, () if self.masks is None else self.masks, strict=False):
            one["segmentation"] = _encode(mask)
        scores = () if self.mask_scores is None else self.mask_scores.tolist()
        for one, score in zip(objects, scores, strict=False):
            one["mask_score"] = score
        return _tracked(objects, self.tracks)

    @classmethod
    def from_dict(
        cls,
        objects: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        image_size: tuple[int, int] | None = None,
        path: Path | None = None,
    ) -> "Detections":
        """The inverse of `to_dict`; masks are read when every object has one.

        Raises UnknownNameError for a label that is not in `names`.
        """
        index = {name: i for i, name in enumerate(names)}
        if unknown := [o["label"] for o in objects if o["label"] not in index]:
            raise UnknownNameError("class", unknown[0], names)
        boxes = [[o["box"][k] for k in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        return cls(
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            scores=np.array([o["score"] for o in objects]),
            labels=np.array([index[o["label"]] for o in objects]),
            names=tuple(names),
            masks=_decode(objects),
            mask_scores=_mask_scores(objects),
            image_size=image_size,
            path=path,
        )

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """COCO results: xywh boxes in pixels as plain floats, masks as compressed RLE.

        `category_ids[label]` is the category of a label; by default label + 1, as COCO counts.
        COCO has no place for `mask_scores`.
        """
        ids = category_ids or range(1, len(self.names) + 1)
        results: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": int(ids[label]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for label, score, (x1, y1, x2, y2) in self._rows()
        ]
        if self.masks is not None:
            for result, mask in zip(results, self.masks, strict=True):
                result["segmentation"] = _encode(mask)
        return _tracked(results, self.tracks)

    @classmethod
    def from_coco(
        cls,
        results: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        image_size: tuple[int, int] | None = None,
        path: Path | None = None,
    ) -> "Detections":
        """The inverse of `to_coco`, but for mask scores, from the results of one image.

        Masks are read when every result has an RLE segmentation. Raises ValueError for a category
        that is not in `category_ids`.
        """
        ids = list(category_ids or range(1, len(names) + 1))
        # float64 until the corner is known: the sum x + w must round once, to the original x2.
        boxes = np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return cls(
            boxes=boxes,
            scores=np.array([r["score"] for r in results]),
            labels=np.array([ids.index(r["category_id"]) for r in results]),
            names=tuple(names),
            masks=_decode(results),
            image_size=image_size,
            path=path,
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """A table: one row an object, best first as found, with "label", "score" and the corners
        "x1", "y1", "x2", "y2" in pixels of the original image."""
        corners = ("x1", "y1", "x2", "y2")
        rows: list[dict[str, Any]] = [
            {"label": self.names[label], "score": score, **dict(zip(corners, box, strict=True))}
            for label, score, box in self._rows()
        ]
        return _tracked(rows, self.tracks)

    def to_yolo(self, *, scores: bool = False) -> list[str]:
        """Lines of a YOLO label file: class, centre x, centre y, width and height, the latter four
        as shares of the image; with `scores` the score at the end.

        Raises ValueError if the image's size is not known.
        """
        if self.image_size is None:
            raise ValueError("image_size is not known, of which YOLO's numbers are shares")
        height, width = self.image_size
        lines = []
        for label, score, (x1, y1, x2, y2) in self._rows():
            centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            shares = (*centre, (x2 - x1) / width, (y2 - y1) / height)
            numbers = (*shares, score) if scores else shares
            lines.append(" ".join([str(label), *(f"{number:.6f}" for number in numbers)]))
        return lines

    def plot(self, image: Image.Image | np.ndarray | None = None) -> Image.Image:
        """The annotated picture: a copy of `image` (RGB; default: the file at `path`) with a box
        and "name score" for every object, and its mask half transparent.

        Raises ValueError if there is neither an image nor a path, or the image has another size.
        """
        from vovnet.images.drawing import draw_detections

        if image is None:
            if self.path is None:
                raise ValueError("give the image: these detections know no path")
            image = load_image(self.path)
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        picture = upright(picture).convert("RGB")
        if self.image_size not in (None, (picture.height, picture.width)):
            raise ValueError(
                f"the image is {picture.height}×{picture.width}, not {self.image_size}"
            )
        return draw_detections(picture, self)

    def __str__(self) -> str:
        """One line an object: name, score, corners."""
        size = "" if self.image_size is None else f" in {self.image_size[1]}×{self.image_size[0]}"
        lines = [f"{len(self)} found{size}"]
        for label, score, box in self._rows():
            corners = " ".join(f"{value:.1f}" for value in box)
            lines.append(f"  {self.names[label]:<12} {score:.3f}  {corners}")
        return "\n".join(lines)

    def to_supervision(self) -> Any:
        """A `supervision.Detections`, class names under `data["class_name"]`.

        Raises VovnetError if the package is not installed.
        """
        try:
            import supervision  # pyrefly: ignore[missing-import]
        except ImportError:
            raise VovnetError(
                "supervision is not installed; install it with: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            mask=self.masks,
            data={"class_name": np.array([self.names[i] for i in self.labels], dtype=str)},
        )

    def _rows(self) -> list[tuple[int, float, list[float]]]:
        columns = (self.labels.tolist(), self.scores.tolist(), self.boxes.tolist())
        return list(zip(*columns, strict=True))


def _tracked(rows: list[dict[str, Any]], tracks: np.ndarray | None) -> list[dict[str, Any]]:
    """The rows, each with its "track" where objects are followed."""
    for row, track in zip(rows, () if tracks is None else tracks, strict=False):
        row["track"] = int(track)
    return rows


def _decode(rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """The masks of rows that all have an RLE under "segmentation", or None."""
    if not rows or not all(isinstance(row.get("segmentation"), dict) for row in rows):
        return None
    from hotcoco import mask as coco_mask

    return np.stack([coco_mask.decode(row["segmentation"]) for row in rows])


def _mask_scores(rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """The scores of the masks of rows that all have one, or None."""
    scores = [row.get("mask_score") for row in rows]
    return None if not rows or None in scores else np.array(scores)


def _encode(mask: np.ndarray) -> dict[str, Any]:
    """One H×W mask as compressed RLE; counts as text, so that it can go into JSON."""
    from hotcoco import mask as coco_mask

    rle = coco_mask.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
