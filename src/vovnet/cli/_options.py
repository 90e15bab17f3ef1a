"""Options and checks that several verbs share."""

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from vovnet.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, VovnetError

DEFAULT_WEIGHTS = "vovdet_nano.voc"

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON on stdout.")]
Overwrite = Annotated[bool, Parameter(negative=())]
Many = Parameter(consume_multiple=True)


def load_weights(weights: str, model: str | None, imgsz: int | None, device: str) -> Any:
    """The detector of a weights file or shipped name, folded for speed."""
    from vovnet.models.weights import load_detector

    return load_detector(weights, model, imgsz=imgsz, device=device, fuse=True)


def check_share(option: str, value: float) -> None:
    """Raise `VovnetError` unless the option's value lies in 0..1."""
    if not 0 <= value <= 1:
        raise VovnetError(f"--{option} {value}: must lie in 0..1")


def exit_code(failed: int, rows: int) -> int:
    """0 if no row failed, 2 if every one did, else 3."""
    if not failed:
        return EXIT_OK
    return EXIT_BAD_INPUT if failed == rows else EXIT_PARTIAL


def split_commas(values: Iterable[str]) -> list[str]:
    """`["a,b", "c"]` as a, b, c, each once: lists may be given either way."""
    words = (word.strip() for value in values for word in value.split(","))
    return list(dict.fromkeys(filter(None, words)))
