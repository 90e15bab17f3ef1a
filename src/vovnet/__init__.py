"""vovnet: OSA networks and detectors, exact, measured and shippable.

`import vovnet` loads nothing heavy; the names below are fetched on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vovnet.detections import Detections
    from vovnet.load import load_detector
    from vovnet.models import create_detector, create_model, list_models
    from vovnet.models.detector import Detector

__version__ = "0.1.0"
_HOMES = {
    "Detections": "vovnet.detections",
    "Detector": "vovnet.models.detector",
    "create_detector": "vovnet.models",
    "create_model": "vovnet.models",
    "list_models": "vovnet.models",
    "load_detector": "vovnet.load",
}
__all__ = [
    "Detections",
    "Detector",
    "create_detector",
    "create_model",
    "list_models",
    "load_detector",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vovnet' has no attribute {name!r}")
    try:
        home = import_module(_HOMES[name])
    except ImportError as error:
        from vovnet.errors import missing_extra

        raise missing_extra(error) or error from None
    return home.__dict__[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
