"""vovnet: OSA networks and detectors, exact, measured and shippable.

`import vovnet` loads nothing heavy; the names below are fetched on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vovnet.detections import Detections
    from vovnet.models import create_detector, create_model, list_models
    from vovnet.models.weights import load_detector

__version__ = "0.1.0"
__all__ = ["Detections", "create_detector", "create_model", "list_models", "load_detector"]


def __getattr__(name: str) -> Any:
    if name == "Detections":
        from vovnet.detections import Detections

        return Detections
    if name == "load_detector":
        from vovnet.models.weights import load_detector

        return load_detector
    if name in __all__:
        from vovnet import models

        return models.__dict__[name]
    raise AttributeError(f"module 'vovnet' has no attribute {name!r}")
