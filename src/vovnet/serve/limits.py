"""How much a service takes on. Light: the command line reads the defaults here."""

from dataclasses import dataclass

from vovnet.errors import VovnetError


@dataclass(frozen=True)
class Limits:
    """What one server takes at a time, of one client and of all.

    Raises `VovnetError` for numbers that make no sense.
    """

    batch: int = 8
    """The most pictures that the network sees at once."""
    wait_ms: float = 2.0
    """How long a batch that is not full waits for pictures that are being decoded."""
    queue: int = 64
    """The most pictures that are accepted and not yet answered; beyond them, clients get 503."""
    max_bytes: int = 20_000_000
    """The most bytes of a request's body."""
    max_pixels: int = 50_000_000
    """The most pixels of a picture."""
    timeout: float = 30.0
    """Seconds that a body may take to arrive, and as many again that its answer may take."""

    def __post_init__(self) -> None:
        for name in ("batch", "queue", "max_bytes", "max_pixels"):
            if (value := getattr(self, name)) < 1:
                raise VovnetError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if not 0 <= self.wait_ms <= 1000:
            raise VovnetError(f"--wait-ms {self.wait_ms}: must lie in 0..1000")
        if not 0 < self.timeout <= 3600:
            raise VovnetError(f"--timeout {self.timeout}: must lie above 0, up to 3600 seconds")
