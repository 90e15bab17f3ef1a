"""The service's own routes: pictures in, what is found in them out; and how it fares."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from vovnet import __version__
from vovnet.detect.options import CONF, IOU
from vovnet.serve.answers import JSON, as_json, as_picture, wanted_type
from vovnet.serve.asked import Asked
from vovnet.serve.body import client_leaves, read_pictures
from vovnet.serve.examples import (
    KNOWN,
    METRICS,
    NO_KEY,
    PREDICT,
    PREDICT_BODY,
    REFUSALS,
    STOPPED,
    body,
)
from vovnet.serve.keys import check_key
from vovnet.serve.metrics import CONTENT_TYPE
from vovnet.serve.refusal import Refusal
from vovnet.serve.schemas import STATUS
from vovnet.serve.service import Service

open_routes = APIRouter(tags=["health"])
routes = APIRouter(dependencies=[Depends(check_key)], tags=["vovnet"])
_HEALTH: dict[int | str, dict[str, Any]] = {200: body(STATUS), 503: STOPPED}


def service_of(request: Request) -> Service:
    """The service that an app was made for."""
    return request.app.state.service


@routes.post(
    "/v1/predict",
    responses={200: PREDICT, **REFUSALS},
    response_class=Response,
    openapi_extra={"requestBody": PREDICT_BODY},
)
async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
    """Find objects in pictures: a form with one or several fields `image`, or a picture as the
    body.

    Answers JSON, or with `Accept: image/png` or `image/jpeg` the annotated picture.
    """
    service = service_of(request)
    how = asked.options(service.detector.names)
    kind = wanted_type(request.headers.get("accept", ""))
    with service.reading():
        uploads = await read_pictures(request, service)
    if kind != JSON and len(uploads) > 1:
        message = f"{len(uploads)} pictures and Accept: {kind}; send one, or accept {JSON}"
        raise Refusal(406, "parameters", message)
    with service.room(len(uploads)):

        async def answer() -> bytes:
            seen = await service.detect(uploads, how)
            if kind == JSON:
                return await service.in_thread(as_json, service, uploads, seen)
            return await service.in_thread(as_picture, service, uploads[0], seen[0], kind)

        found = await service.in_time(answer(), client_leaves(request))
        return Response(found, media_type=kind)


@routes.get("/v1/model", responses={200: KNOWN, 401: NO_KEY})
async def model(request: Request) -> dict[str, Any]:
    """The model that answers, its classes, and the service's limits."""
    service = service_of(request)
    detector = service.detector
    return {
        "name": detector.name,
        "version": __version__,
        "runtime": detector.runtime,
        "precision": detector.precision,
        "input": {"height": detector.input_spec.size[0], "width": detector.input_spec.size[1]},
        "classes": list(detector.names),
        "masks": detector.masks,
        "defaults": {"conf": CONF, "iou": IOU},
        "limits": vars(service.limits),
    }


@routes.get("/metrics", response_class=Response, responses={200: METRICS, 401: NO_KEY})
async def metrics(request: Request) -> Response:
    """Times, counts and the queue's length, for Prometheus."""
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@open_routes.get("/healthz", responses=_HEALTH)
async def healthz(request: Request) -> dict[str, str]:
    """200 while it computes; 503 if it must be started anew."""
    if not service_of(request).works:
        raise Refusal(503, "stopped", "it does not compute any more; start it anew")
    return {"status": "ok"}


@open_routes.get("/readyz", responses=_HEALTH)
async def readyz(request: Request) -> dict[str, str]:
    """200 while new clients are welcome; 503 once it is told to stop."""
    if not service_of(request).ready:
        raise Refusal(503, "stopped", "it is about to stop; go to another")
    return {"status": "ready"}
