"""What /openapi.json tells of one service beyond its routes: which model, and how a key is sent."""

from typing import Any

from fastapi import FastAPI

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe(app: FastAPI, model: str, *, keys: bool) -> dict[str, Any]:
    """The description of `app`; `keys` says whether one is asked for."""
    told = FastAPI.openapi(app)
    components = {"securitySchemes": _SCHEMES} if keys else {}
    told["components"] = components  # FastAPI's own are of a refusal that no route gives
    for path, operations in told["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            if "{name}" in path:
                operation["parameters"][0]["schema"]["enum"] = [model]
                if "/HTTPValidationError" in str(answers.get("422")):
                    del answers["422"]
            if keys and "401" in answers:
                operation["security"] = [{scheme: []} for scheme in _SCHEMES]
    return told
