"""Random streams by name: what is drawn for one purpose says nothing about any other."""

import hashlib

import numpy as np


def stream_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 64-bit seed that belongs to a run's seed, a purpose and numbers such as epoch and image.

    Hashed as text: to NumPy alone (1, 2) and (1, 2, 0, 0) are one seed, and so may be two numbers
    and one larger than 32 bits.
    """
    text = f"{purpose}: {' '.join(str(int(number)) for number in (seed, *numbers))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of that stream; see `stream_seed`."""
    return np.random.default_rng(stream_seed(seed, purpose, *numbers))
