"""`vovnet serve` as a Ray Serve deployment.

    serve run vovnet.serve.on_ray:app weights=vovdet_nano.voc replicas=2

Each replica is the whole service of `vovnet serve`, with its own detector, queue and batches; Ray
Serve listens, and shares the requests out.
"""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from vovnet.errors import MissingExtraError
from vovnet.load import load_detector, served_by
from vovnet.serve.limits import Limits
from vovnet.serve.run import need_packages

if TYPE_CHECKING:
    from fastapi import FastAPI


class Options(BaseModel, extra="forbid"):
    """What `serve run` is told as KEY=VALUE: the options of `vovnet serve` without their dashes,
    how many `replicas` there are, and of each the `threads` and `gpus`."""

    weights: str = "vovdet_nano.voc"
    model: str | None = None
    runtime: str | None = None
    precision: str | None = None
    device: str = "cpu"
    imgsz: int | None = None
    api_key_file: Path | None = None
    replicas: int = 1
    threads: int = 1
    gpus: float = 0.0
    batch: int = Limits.batch
    wait_ms: float = Limits.wait_ms
    queue: int = Limits.queue
    max_bytes: int = Limits.max_bytes
    max_pixels: int = Limits.max_pixels
    timeout: float = Limits.timeout

    def limits(self) -> Limits:
        """Those of each replica; raises `VovnetError` for numbers that make no sense."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})


def app(given: Options) -> Any:
    """The application that `serve run` starts.

    Raises `MissingExtraError` for packages that are not there, `VovnetError` for bad limits.
    """
    need_packages()
    try:
        from ray import serve
    except ImportError:
        raise MissingExtraError("ray", "ray", "Ray Serve") from None
    limits = given.limits()

    def build() -> "FastAPI":
        return replica(given, limits)

    ingress: Any = serve.ingress(build)()
    deployment: Any = serve.deployment(
        ingress,
        name="vovnet",
        num_replicas=given.replicas,
        max_ongoing_requests=2 * limits.queue,  # beyond its queue a replica says so itself
        ray_actor_options={"num_cpus": given.threads, "num_gpus": given.gpus},
    )
    return deployment.bind()


def replica(given: Options, limits: Limits) -> "FastAPI":
    """What one replica serves; it has computed before it is asked."""
    from vovnet.serve.app import create_app
    from vovnet.serve.keys import read_keys

    detector = load_detector(
        given.weights,
        given.model,
        runtime=given.runtime or served_by(given.weights, given.device, given.imgsz),
        precision=given.precision,
        device=given.device,
        threads=given.threads,
        imgsz=given.imgsz,
        fuse=True,
    )
    keys = () if given.api_key_file is None else read_keys(given.api_key_file)
    served = create_app(detector, limits, keys=keys)
    served.state.service.warm_up()
    return served
