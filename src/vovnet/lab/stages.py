"""A detector from the bytes of a JPEG to boxes, stage by stage."""

import io
import time
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image
from torch.utils._pytree import TreeSpec, tree_unflatten

from vovnet.detect.foreign import ForeignDetector, output_names
from vovnet.detect.options import Options
from vovnet.images import decode_image
from vovnet.lab.latency import LEAST_CALLS, synchronise
from vovnet.lab.row import STAGES
from vovnet.models.detector import Detector
from vovnet.runtimes import Runner


class EndToEnd:
    """Runs `batch` copies of a photograph through a detector, timing the stages.

    decode: JPEG to pixels; prepare: resize, stack, normalise, move to the device; network: the
    runner; postprocess: decode its outputs, suppress overlaps, and bring the boxes back to the
    host. On a GPU the device is waited for after each.
    """

    def __init__(
        self,
        detector: Detector | ForeignDetector,
        runner: Runner,
        structure: TreeSpec | None,
        batch: int,
    ) -> None:
        self._detector, self._runner, self._structure = detector, runner, structure
        self._batch = batch
        self._jpeg, self.picture = photograph()

    def run(self) -> tuple[float, ...]:
        """Seconds of each of `STAGES`, for the batch."""
        times = [time.perf_counter()]
        for stage in (self._decode, self._prepare, self._network, self._postprocess):
            stage()
            synchronise(self._runner.device)
            times.append(time.perf_counter())
        return (*np.diff(times).tolist(), times[-1] - times[0])

    def window(self, seconds: float) -> list[tuple[float, ...]]:
        """`run` again and again for about `seconds`, the first one not counted."""
        self.run()
        rows = []
        end = time.perf_counter() + seconds
        while len(rows) < LEAST_CALLS or time.perf_counter() < end:
            rows.append(self.run())
        return rows

    def _decode(self) -> None:
        shrink = max(self._detector.input_spec.size)
        self._images = [decode_image(self._jpeg, shrink_to=shrink) for _ in range(self._batch)]

    def _prepare(self) -> None:
        spec = self._detector.input_spec
        prepared = [spec.prepare(image, size) for image, size in self._images]
        pixels = np.stack([pixels for pixels, _ in prepared])
        self._places = [place for _, place in prepared]
        if isinstance(self._detector, ForeignDetector):
            self._input = torch.from_numpy(spec.normalize(pixels)).to(self._runner.device)
            return
        there = torch.from_numpy(pixels).to(self._runner.device)
        self._input = self._detector.normalize(there).contiguous()

    def _network(self) -> None:
        self._flat = self._runner(self._input)

    @torch.inference_mode()
    def _postprocess(self) -> None:
        if isinstance(self._detector, ForeignDetector):
            self._read(self._detector)
            return
        assert self._structure is not None
        outputs = tree_unflatten(self._flat, self._structure)
        found = self._detector.decode(outputs, self._detector.input_spec.size)
        self.found = [
            place.to_image(one.boxes.cpu().numpy())
            for one, place in zip(found, self._places, strict=True)
        ]

    def _read(self, detector: ForeignDetector) -> None:
        """What another project's outputs say, by its description."""
        arrays = [tensor.cpu().numpy() for tensor in self._flat]
        names = output_names(detector.session, len(arrays))
        found = detector.chosen(dict(zip(names, arrays, strict=True)), Options())
        self.found = [
            place.to_image(one.boxes) for one, place in zip(found, self._places, strict=True)
        ]


def photograph() -> tuple[bytes, str]:
    """A JPEG of about 500 pixels, and what it shows: a photograph if scikit-image is there."""
    if find_spec("skimage") is not None:
        from skimage import data

        picture, name = Image.fromarray(data.astronaut()), "astronaut of scikit-image"
    else:
        y, x = np.mgrid[0:512, 0:512]
        waves = [np.sin(x / 17 + i) + np.cos(y / 23 * (i + 1)) for i in range(3)]
        pixels = (np.stack(waves, -1) * 63 + 127).astype(np.uint8)
        picture, name = Image.fromarray(pixels), "drawn waves"
    data_out = io.BytesIO()
    picture.save(data_out, "JPEG", quality=92)
    return data_out.getvalue(), f"{name}, {picture.width}×{picture.height} JPEG"


def by_stage(windows: list[list[tuple[float, ...]]]) -> dict[str, list[list[float]]]:
    """The windows' rows as milliseconds: stage -> one list a window."""
    return {
        stage: [[row[i] * 1000 for row in rows] for rows in windows]
        for i, stage in enumerate(STAGES)
    }
