"""The service as an ASGI application: routes, refusals as JSON of one line, and CORS if asked."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vovnet import __version__
from vovnet.detect.run import AnyDetector
from vovnet.errors import ImageError
from vovnet.serve.description import describe
from vovnet.serve.limits import Limits
from vovnet.serve.page import page_routes
from vovnet.serve.protocol import v2_open_routes, v2_routes
from vovnet.serve.refusal import Refusal
from vovnet.serve.routes import open_routes, routes
from vovnet.serve.service import Service
from vovnet.text import one_line


def create_app(
    detector: AnyDetector,
    limits: Limits | None = None,
    *,
    keys: tuple[bytes, ...] = (),
    origins: Sequence[str] = (),
) -> FastAPI:
    """An application that serves `detector`; `keys` are those of `read_keys`, `origins` of whom
    browsers may ask it from pages of others."""
    service = Service(detector, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="vovnet serve",
        version=__version__,
        summary=f"Objects in pictures, found by {detector.name}.",
        lifespan=lifespan,
        docs_url=None,  # these load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service, app.state.keys = service, keys
    for router in (routes, open_routes, v2_routes, v2_open_routes, page_routes):
        app.include_router(router)
    app.openapi = partial(describe, app, detector.name, keys=bool(keys))
    _add_refusals(app, service)
    app.add_middleware(_Headers, service=service)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Accept"],
            expose_headers=["Retry-After"],
        )
    return app


def _add_refusals(app: FastAPI, service: Service) -> None:
    """Whatever is refused: {"error": one line}, and counted."""

    def refuse(error: Refusal) -> JSONResponse:
        service.metrics.refuse(error.reason)
        body = {"error": one_line(error)}
        return JSONResponse(body, error.status, error.headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return refuse(error)

    @app.exception_handler(ImageError)
    async def no_picture(request: Request, error: ImageError) -> JSONResponse:
        return refuse(Refusal(422, "malformed", str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refuse(Refusal(422, "parameters", explain(error)))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}; see /openapi.json"
        return refuse(Refusal(error.status_code, "no_route", message, dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        message = "this is a bug in vovnet; its log tells more"
        # The server logs the error and ends the connection: a next request would be lost on it.
        return refuse(Refusal(500, "bug", message, {"Connection": "close"}))


def explain(error: RequestValidationError) -> str:
    """What is wrong with which parameters."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg'].lower()}"
        for one in error.errors()
    )


class _Headers:
    """Adds to every answer what keeps browsers from guessing and, once the service is told to stop,
    that the connection ends: no request can then come too late."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-content-type-options", b"nosniff")]
                if self.service.draining:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
