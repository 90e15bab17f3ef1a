"""A torch detector's accuracy, measured by all processes that work together."""

import itertools
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

from vovnet.data.record import Dataset
from vovnet.distributed import (
    broadcast_object,
    broadcast_state,
    gather_objects,
    is_main,
    rank,
    sum_across,
    world_size,
)
from vovnet.evaluate.run import EVAL_CONF, EVAL_IOU, FoundHook, check_names, metrics_of, see
from vovnet.models.detector import Detector


def evaluate_together(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int = 8,
    conf: float = EVAL_CONF,
    iou: float = EVAL_IOU,
    on_images: Callable[[int], None] | None = None,
    on_found: FoundHook | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """`vovnet.evaluate.run.evaluate`, in eval mode meanwhile, by as many processes as there are.

    They share the images, and all return what one alone would: they look with the main process's
    weights, and at the very batches that one alone would make. `on_images` hears of this process's
    images only, `on_found`, in the main process alone, of what was found in all of them. `stop` is
    asked after every image: when it says so in one process, all of them raise KeyboardInterrupt.
    """
    check_names(detector, dataset)
    device = next(detector.parameters()).device
    broadcast_state(detector.network)
    was_training = detector.training
    detector.eval()
    # Every batch whose number, by the count of processes, is this one's rank.
    indices = [i for i in range(len(dataset)) if i // batch % world_size() == rank()]
    own = see(
        detector, dataset, indices, batch=batch, conf=conf, iou=iou, on_images=on_images, stop=stop
    )
    detector.train(was_training)
    if stop is not None and sum_across(torch.tensor(float(stop()), device=device)) > 0:
        raise KeyboardInterrupt
    shares = gather_objects(own)
    seen = sorted(itertools.chain(*shares), key=attrgetter("index"))
    if on_found is not None and is_main():
        on_found([one.found for one in seen])
    return broadcast_object(metrics_of(seen, dataset, detector.masks) if is_main() else None)
