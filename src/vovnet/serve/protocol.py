"""The Open Inference Protocol, version 2, which KServe, Triton and their clients speak.

One input, `images`: UINT8 [N, height, width, 3], or BYTES [N], files of pictures in base64. Outputs
are padded to the most that was found in one of the N: `boxes` FP32 [N, K, 4] in pixels of the
picture, `scores` FP32 [N, K], `labels` INT64 [N, K] and `count` INT64 [N]; beyond an image's count
stand zeros.
"""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from vovnet import __version__
from vovnet.serve.body import client_leaves, read_body
from vovnet.serve.examples import INFER, INFER_BODY, NO_KEY, NO_MODEL, REFUSALS, STOPPED, body
from vovnet.serve.keys import check_key
from vovnet.serve.refusal import Refusal
from vovnet.serve.routes import healthz, readyz, service_of
from vovnet.serve.schemas import V2_LIVE, V2_MODEL, V2_MODEL_READY, V2_READY, V2_SERVER
from vovnet.serve.service import Service
from vovnet.serve.tensors import as_outputs, read_request
from vovnet.text import short

v2_open_routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
v2_routes = APIRouter(
    prefix="/v2", tags=["Open Inference Protocol"], dependencies=[Depends(check_key)]
)


@v2_open_routes.get("", responses={200: body(V2_SERVER)})
async def server() -> dict[str, Any]:
    """The server's name and version."""
    return {"name": "vovnet", "version": __version__, "extensions": []}


@v2_open_routes.get("/health/live", responses={200: body(V2_LIVE), 503: STOPPED})
async def live(request: Request) -> dict[str, bool]:
    """As /healthz."""
    await healthz(request)
    return {"live": True}


@v2_open_routes.get("/health/ready", responses={200: body(V2_READY), 503: STOPPED})
async def ready(request: Request) -> dict[str, bool]:
    """As /readyz."""
    await readyz(request)
    return {"ready": True}


@v2_routes.get("/models/{name}", responses={200: body(V2_MODEL), 401: NO_KEY, 404: NO_MODEL})
async def model(request: Request, name: str) -> dict[str, Any]:
    """The model's inputs and outputs."""
    detector = _service(request, name).detector
    return {
        "name": detector.name,
        "versions": [],
        "platform": detector.runtime,
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "labels", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "count", "datatype": "INT64", "shape": [-1]},
        ],
    }


@v2_routes.get(
    "/models/{name}/ready",
    responses={200: body(V2_MODEL_READY), 401: NO_KEY, 404: NO_MODEL, 503: STOPPED},
)
async def model_ready(request: Request, name: str) -> dict[str, Any]:
    """Whether the model is ready."""
    _service(request, name)
    await readyz(request)
    return {"name": name, "ready": True}


@v2_routes.post(
    "/models/{name}/infer",
    response_class=Response,
    responses={200: INFER, 404: NO_MODEL, **REFUSALS},
    openapi_extra={"requestBody": INFER_BODY},
)
async def infer(request: Request, name: str) -> Response:
    """Find objects in tensors or files of pictures."""
    service = _service(request, name)
    detector = service.detector
    with service.reading():
        body = await read_body(request, service)
        given = await service.in_thread(read_request, body, detector.names, service.limits)
    del body  # what it held is in `given`
    with service.room(len(given.uploads)):

        async def answer() -> bytes:
            seen = await service.detect(given.uploads, given.how)
            return await service.in_thread(as_outputs, detector.name, given, seen)

        found = await service.in_time(answer(), client_leaves(request))
        return Response(found, media_type="application/json")


def _service(request: Request, name: str) -> Service:
    service = service_of(request)
    if name != service.detector.name:
        message = f"no model {short(name)}; here is {service.detector.name}"
        raise Refusal(404, "no_route", message)
    return service
