"""The server: a socket, an application, and an orderly end."""

import asyncio
import math
import os
import signal
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from vovnet.detect.run import AnyDetector
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.serve.limits import Limits

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_DRAIN = 1.0  # seconds in which clients with a connection learn that it ends
_BACKLOG = 2048  # connections that wait to be taken
_KEEP_ALIVE = 75  # seconds; longer than proxies keep theirs, which else meet a closed one


def need_packages() -> None:
    """Raise `MissingExtraError` if the extra `serve` is not installed."""
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package.replace("_", "-"), "serve")


def serve(
    detector: AnyDetector,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: tuple[bytes, ...] = (),
    origins: Sequence[str] = (),
    started: Callable[[dict[str, str]], None] = print,
) -> None:
    """Serve until SIGTERM or Control-C; all that was accepted by then is answered.

    `started` is told where it is and what it serves, once it answers. Raises `VovnetError` if the
    port cannot be had.
    """
    need_packages()
    from vovnet.serve.app import create_app

    app = create_app(detector, limits, keys=keys, origins=origins)
    with bind(host, port) as listener:
        app.state.service.warm_up()
        listener.listen(_BACKLOG)  # not before: who is refused asks again, who waits may not
        shown = f"[{host}]" if ":" in host else host
        facts = {"url": f"http://{shown}:{listener.getsockname()[1]}", "model": detector.name}
        started(facts | {"runtime": detector.runtime, "precision": detector.precision})
        make_server(app, limits).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket for the server; port 0 is a free one. Raises `VovnetError`."""
    if not 0 <= port <= 65535:
        raise VovnetError(f"--port {port}: must lie in 0..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, for only then asyncio turns Nagle's algorithm off: else the body of
    # an answer waits 40 ms for the client to acknowledge its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        return listener
    except OSError as error:
        listener.close()
        number = error.errno or 0  # those of names of hosts are below 0
        reason = os.strerror(number) if number > 0 else error.strerror
        message = f"--host {host} --port {port}: cannot be had ({reason}); give another"
        raise VovnetError(message) from None


def make_server(app: "FastAPI", limits: Limits) -> "uvicorn.Server":
    """A server for an application of `create_app`; `run(sockets=[...])` serves until a signal."""
    import uvicorn

    class _Orderly(uvicorn.Server):
        """Tells its clients that it ends before it does."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """A first signal ends it in order, a second Control-C at once."""
            service = app.state.service
            if service.draining:
                self.force_exit = sig == signal.SIGINT
                return
            service.draining = True
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, _DRAIN, self._stop)

        def _stop(self) -> None:
            self.should_exit = True

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        # A body may take one time limit to arrive, its answer another.
        timeout_graceful_shutdown=math.ceil(2 * limits.timeout) + 5,
    )
    return _Orderly(config)
