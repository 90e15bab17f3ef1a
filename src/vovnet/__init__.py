"""vovnet: OSA networks and detectors, exact, measured and shippable."""

__version__ = "0.1.0"
