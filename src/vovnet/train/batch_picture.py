"""What the network was shown first, as a picture in the run's folder."""

from pathlib import Path

from vovnet.data.loader import Batch
from vovnet.files import write_atomically
from vovnet.review.pictures import BATCH, MOST_TILES, batch_picture


def keep_batch(folder: Path, batch: Batch, names: tuple[str, ...]) -> None:
    """Write some of a batch's pictures, with the boxes to be learned, as one small JPEG."""
    pixels = batch.pixels[:MOST_TILES].cpu().numpy()
    targets = batch.targets[:MOST_TILES]
    boxes = [target.boxes.cpu().numpy() for target in targets]
    labels = [target.labels.cpu().numpy() for target in targets]
    write_atomically(folder / BATCH, batch_picture(pixels, boxes, labels, names))
