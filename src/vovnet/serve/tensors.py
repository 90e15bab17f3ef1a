"""Requests and answers of the Open Inference Protocol as JSON."""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from vovnet.detect.found import in_image
from vovnet.detect.options import Options
from vovnet.serve.asked import Asked
from vovnet.serve.limits import Limits
from vovnet.serve.refusal import Refusal
from vovnet.serve.service import Seen, Upload
from vovnet.text import one_line, short

_TYPES = {"boxes": "FP32", "scores": "FP32", "labels": "INT64", "count": "INT64"}


class Given(NamedTuple):
    """One request: its pictures and options, its id if it has one, and the outputs asked for."""

    uploads: list[Upload]
    how: Options
    id: str | None
    outputs: tuple[str, ...]


def read_request(body: bytes, names: Sequence[str], limits: Limits) -> Given:
    """The request of a body; raises `Refusal` for anything malformed in it."""
    try:
        request = json.loads(body)
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except ValueError as error:
        raise _malformed(f"the body is no JSON ({one_line(error)})") from None
    if not isinstance(request, dict):
        raise _malformed("the body is no JSON object")
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _malformed("id is no text")
    tensor = _only_input(request.get("inputs"))
    return Given(
        _uploads(tensor, limits),
        _options(request.get("parameters"), names),
        identity,
        _outputs(request.get("outputs")),
    )


def as_outputs(model: str, given: Given, seen: Sequence[Seen]) -> bytes:
    """The answer to a request, padded to the most that was found in a picture."""
    names = tuple(str(i) for i in range(1 + max(_largest(one) for one in seen)))
    found = [in_image(one.found._replace(masks=None), one.place, names) for one in seen]
    most = max(len(one) for one in found)
    arrays: dict[str, np.ndarray] = {
        "boxes": np.zeros((len(found), most, 4), np.float32),
        "scores": np.zeros((len(found), most), np.float32),
        "labels": np.zeros((len(found), most), np.int64),
        "count": np.array([len(one) for one in found], np.int64),
    }
    for index, one in enumerate(found):
        arrays["boxes"][index, : len(one)] = one.boxes
        arrays["scores"][index, : len(one)] = one.scores
        arrays["labels"][index, : len(one)] = one.labels
    answer = {"model_name": model, "id": given.id, "outputs": []}
    if given.id is None:
        del answer["id"]
    for name in given.outputs:
        values = arrays[name]
        part = {"name": name, "datatype": _TYPES[name], "shape": list(values.shape)}
        answer["outputs"].append(part | {"data": values.ravel().tolist()})
    return json.dumps(answer, separators=(",", ":")).encode()


def _largest(seen: Seen) -> int:
    return int(seen.found.labels.max(initial=0))


def _only_input(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _malformed("inputs holds not just one tensor; send images")
    tensor = inputs[0]
    if tensor.get("name") != "images":
        raise _malformed(f"unknown input {short(tensor.get('name'))}; it is called images")
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)
    if not whole:
        raise _malformed("images: shape is no list of whole numbers above 0")
    if not isinstance(tensor.get("data"), list):
        raise _malformed("images: data is no list; binary data is not read")
    return tensor


def _uploads(tensor: dict[str, Any], limits: Limits) -> list[Upload]:
    kind, shape, data = tensor.get("datatype"), tensor["shape"], tensor["data"]
    if kind == "BYTES" and len(shape) == 1:
        if len(data) != shape[0]:
            raise _malformed(f"images: {len(data)} pictures, but shape says {shape[0]}")
        return [Upload(_decoded(text, i), f"picture {i + 1}") for i, text in enumerate(data)]
    if kind == "UINT8" and len(shape) == 4 and shape[3] == 3:
        if shape[1] * shape[2] > limits.max_pixels:
            raise _malformed(f"images: over the limit of {limits.max_pixels} pixels a picture")
        pixels = _pixels(data, shape)
        return [Upload(picture, f"picture {i + 1}") for i, picture in enumerate(pixels)]
    raise _malformed(
        f"images: {short(kind)} {shape[:6]} is not read; send UINT8 [N, height, width, 3] or "
        "BYTES [N], files of pictures in base64"
    )


def _decoded(text: Any, index: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _malformed(f"images: picture {index + 1} is no base64") from None


def _pixels(data: list[Any], shape: list[int]) -> np.ndarray:
    """Numbers, nested or flat, as the protocol allows, as pixels N×H×W×3."""
    try:
        values = np.array(data)
    except (ValueError, OverflowError):
        raise _malformed("images: data is ragged") from None
    count = math.prod(shape)
    if values.size != count:
        raise _malformed(f"images: {values.size} numbers, but shape says {count}")
    if values.ndim != 1 and list(values.shape) != shape:
        raise _malformed("images: data is nested otherwise than shape says")
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise _malformed("images: data holds something else than whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _options(parameters: Any, names: Sequence[str]) -> Options:
    try:
        return Asked.model_validate({} if parameters is None else parameters).options(names)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("parameters", *first["loc"])))
        raise Refusal(422, "parameters", f"{where}: {first['msg'].lower()}") from None


def _outputs(outputs: Any) -> tuple[str, ...]:
    if outputs is None or outputs == []:
        return tuple(_TYPES)
    named = isinstance(outputs, list) and all(isinstance(one, dict) for one in outputs)
    if not named or not all(isinstance(one.get("name"), str) for one in outputs):
        raise _malformed("outputs is no list of objects with a name")
    unknown = [one["name"] for one in outputs if one["name"] not in _TYPES]
    if unknown:
        raise _malformed(f"unknown output {short(unknown[0])}; there are {', '.join(_TYPES)}")
    return tuple(one["name"] for one in outputs)


def _malformed(message: str) -> Refusal:
    return Refusal(400, "malformed", message)
