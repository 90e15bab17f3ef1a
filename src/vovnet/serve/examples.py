"""What the OpenAPI description shows: bodies, answers and refusals by example."""

from typing import Any

from vovnet.serve.schemas import ANSWER, ERROR, FILE, FORM, MODEL, V2_ANSWER, V2_ASK, Schema

_FOUND = {
    "label": "cat",
    "score": 0.91,
    "box": {"xmin": 12.5, "ymin": 8.0, "xmax": 431.0, "ymax": 296.5},
}
_ANSWER = {
    "model": "vovdet_nano",
    "results": [
        {
            "name": "cat.jpg",
            "height": 300,
            "width": 451,
            "detections": [_FOUND],
            "ms": {"decode": 2.1, "queue": 0.3, "network": 20.4},
        }
    ],
}
_PIXEL = "R0lGODdhAQABAIEAAICAgAAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw=="
_BINARY = {"schema": FILE}


def body(schema: Schema, **more: Any) -> dict[str, Any]:
    """A body or an answer in JSON; `more` is an example of it."""
    return {"content": {"application/json": {"schema": schema, **more}}}


PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": FORM},
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}
PREDICT: dict[str, Any] = {
    "description": "What was found, in pixels of each picture as it is displayed; best first.",
    "content": {
        "application/json": {"schema": ANSWER, "example": _ANSWER},
        "image/png": _BINARY,
        "image/jpeg": _BINARY,
    },
}
_KNOWN = {
    "name": "vovdet_nano",
    "version": "0.1.0",
    "runtime": "onnxruntime",
    "precision": "fp32",
    "input": {"height": 320, "width": 320},
    "classes": ["cat", "dog"],
    "masks": False,
    "defaults": {"conf": 0.25, "iou": 0.6},
    "limits": {"batch": 8, "queue": 64, "max_bytes": 20_000_000, "max_pixels": 50_000_000}
    | {"wait_ms": 2.0, "timeout": 30.0},
}
KNOWN = body(MODEL, example=_KNOWN)
METRICS = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_IMAGES = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [_PIXEL]}
INFER_BODY = body(V2_ASK, example={"parameters": {"conf": 0.25}, "inputs": [_IMAGES]})
INFER_BODY["required"] = True
_OUTPUTS = [
    {"name": "boxes", "datatype": "FP32", "shape": [1, 1, 4], "data": [12.5, 8, 431, 296.5]},
    {"name": "scores", "datatype": "FP32", "shape": [1, 1], "data": [0.91]},
    {"name": "labels", "datatype": "INT64", "shape": [1, 1], "data": [7]},
    {"name": "count", "datatype": "INT64", "shape": [1], "data": [1]},
]
INFER = body(V2_ANSWER, example={"model_name": "vovdet_nano", "outputs": _OUTPUTS})


def _refusal(description: str, error: str) -> dict[str, Any]:
    return {"description": description, **body(ERROR, example={"error": error})}


NO_KEY = _refusal(
    "No valid API key.", "no valid API key; send the header Authorization: Bearer KEY"
)
NO_MODEL = _refusal("No such model.", "no model 'yolo'; here is vovdet_nano")
STOPPED = _refusal("It stops, or is to be started anew.", "it is about to stop; go to another")
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusal("A malformed form.", "the form is malformed (Missing boundary in multipart.)"),
    401: NO_KEY,
    406: _refusal("Not offered in that form.", "2 pictures and Accept: image/png; send one"),
    408: _refusal("The body came too slowly.", "the body did not arrive within 30 s"),
    413: _refusal("Too many bytes or pictures.", "the body is over 20000000 bytes"),
    415: _refusal("A compressed body.", "compressed bodies are not read; send it uncompressed"),
    422: _refusal("No picture, or options that make no sense.", "cat.jpg: is empty (0 bytes)"),
    503: _refusal("The queue is full; Retry-After says when.", "64 pictures wait already"),
    504: _refusal("Not answered in time.", "not answered within 30 s"),
}
