"""JSON schemas of what the service reads and answers, for its OpenAPI description."""

from typing import Any

Schema = dict[str, Any]


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_WHOLE = {"type": "integer", "minimum": 1}
_AMOUNT = {"type": "number", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}

ERROR = _object({"error": _TEXT})
FILE: Schema = {"type": "string", "format": "binary"}
FORM = _object({"image": _list(FILE, minItems=1)}) | {"additionalProperties": False}

_MASK = _object({"size": _list(_WHOLE, minItems=2, maxItems=2), "counts": _TEXT})
_FOUND = _object(
    {
        "label": _TEXT,
        "score": _SHARE,
        "box": _object(dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), _AMOUNT)),
    },
    {"segmentation": _MASK, "mask_score": _SHARE},
)
_ROW = _object(
    {
        "name": _TEXT,
        "height": _WHOLE,
        "width": _WHOLE,
        "detections": _list(_FOUND),
        "ms": _object(dict.fromkeys(("decode", "queue", "network"), _AMOUNT)),
    }
)
ANSWER = _object({"model": _TEXT, "results": _list(_ROW, minItems=1)})
MODEL = _object(
    {
        **dict.fromkeys(("name", "version", "runtime", "precision"), _TEXT),
        "input": _object({"height": _WHOLE, "width": _WHOLE}),
        "classes": _list(_TEXT, minItems=1),
        "masks": _FLAG,
        "defaults": _object({"conf": _SHARE, "iou": _SHARE}),
        "limits": _object(
            {
                **dict.fromkeys(("batch", "queue", "max_bytes", "max_pixels"), _WHOLE),
                **dict.fromkeys(("wait_ms", "timeout"), _AMOUNT),
            }
        ),
    }
)
STATUS = _object({"status": _TEXT})

# The Open Inference Protocol.
V2_SERVER = _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)})
V2_LIVE, V2_READY = _object({"live": _FLAG}), _object({"ready": _FLAG})
V2_MODEL_READY = _object({"name": _TEXT, "ready": _FLAG})
_TENSOR = {"name": _TEXT, "datatype": _TEXT}
_TOLD = _object({**_TENSOR, "shape": _list({"type": "integer", "minimum": -1})})
V2_MODEL = _object(
    {
        **dict.fromkeys(("name", "platform"), _TEXT),
        **dict.fromkeys(("inputs", "outputs"), _list(_TOLD)),
        "versions": _list(_TEXT),
    }
)
_FILES = _object(
    {
        "name": {"const": "images"},
        "datatype": {"const": "BYTES"},
        "shape": _list(_WHOLE, minItems=1, maxItems=1),
        "data": _list({"type": "string", "format": "byte"}, minItems=1),
    }
)
_PIXELS = _object(
    {
        "name": {"const": "images"},
        "datatype": {"const": "UINT8"},
        "shape": _list(_WHOLE, minItems=4, maxItems=4),
        "data": _list({"description": "0 to 255; flat, or nested as shape says."}, minItems=1),
    }
)
_OPTIONS: Schema = {"type": ["object", "null"], "description": "As those of /v1/predict."}
_OUTPUT = _object({"name": {"enum": ["boxes", "scores", "labels", "count"]}})
_ASKED: Schema = {"type": ["array", "null"], "items": _OUTPUT}
V2_ASK = _object(
    {"inputs": _list({"oneOf": [_FILES, _PIXELS]}, minItems=1, maxItems=1)},
    {"id": {"type": ["string", "null"]}, "parameters": _OPTIONS, "outputs": _ASKED},
)
_NUMBERS = _object(
    {**_TENSOR, "shape": _list(_COUNT), "data": _list({"type": "number", "minimum": 0})}
)
V2_ANSWER = _object({"model_name": _TEXT, "outputs": _list(_NUMBERS)}, {"id": _TEXT})
