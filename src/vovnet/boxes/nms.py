"""From dense scores and boxes to the few that remain."""

from torch import Tensor
from torchvision.ops import batched_nms


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    *,
    conf: float,
    iou: float,
    max_candidates: int = 1000,
    max_detections: int = 300,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-class non-maximum suppression of one image.

    `boxes` is A×4 xyxy, `scores` A×C (no background column). Every (box, class) pair whose score
    exceeds `conf` competes; the best `max_candidates` enter the suppression at overlap `iou`.
    Returns boxes K×4, scores K and labels K, best first, K ≤ `max_detections`.
    """
    box_index, labels = (scores > conf).nonzero(as_tuple=True)
    values = scores[box_index, labels]
    if len(values) > max_candidates:
        values, order = values.topk(max_candidates)
        box_index, labels = box_index[order], labels[order]
    candidates = boxes[box_index]
    # batched_nms keeps classes apart by shifting each past the largest coordinate, which works
    # only if none is negative; boxes may reach out of the image.
    corner = candidates.amin() if len(candidates) else 0.0
    keep = batched_nms(candidates - corner, values, labels, iou)[:max_detections]
    return candidates[keep], values[keep], labels[keep]
