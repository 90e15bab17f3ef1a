"""What the OpenAPI description shows: bodies, answers and refusals by example."""

from typing import Any

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
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURES = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
    },
}

PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _PICTURES},
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}
PREDICT: dict[str, Any] = {
    "description": "What was found, in pixels of each picture as it is displayed; best first.",
    "content": {
        "application/json": {"schema": {"type": "object"}, "example": _ANSWER},
        "image/png": _BINARY,
        "image/jpeg": _BINARY,
    },
}
MODEL: dict[str, Any] = {
    "content": {
        "application/json": {
            "example": {
                "name": "vovdet_nano",
                "runtime": "onnxruntime",
                "precision": "fp32",
                "classes": ["cat", "dog"],
                "masks": False,
                "defaults": {"conf": 0.25, "iou": 0.6},
            }
        }
    }
}


def _refusal(description: str, error: str) -> dict[str, Any]:
    example = {"error": error}
    schema = {"type": "object", "properties": {"error": {"type": "string"}}}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusal("A malformed form.", "the form is malformed (Missing boundary in multipart.)"),
    401: _refusal("No valid API key.", "no valid API key; send the header Authorization: Bearer K"),
    406: _refusal("Not offered in that form.", "2 pictures and Accept: image/png; send one"),
    408: _refusal("The body came too slowly.", "the body did not arrive within 30 s"),
    413: _refusal("Too many bytes or pictures.", "the body is over 20000000 bytes"),
    415: _refusal("A compressed body.", "compressed bodies are not read; send it uncompressed"),
    422: _refusal("No picture, or options that make no sense.", "cat.jpg: is empty (0 bytes)"),
    503: _refusal("The queue is full; Retry-After says when.", "64 pictures wait already"),
    504: _refusal("Not answered in time.", "not answered within 30 s"),
}
