"""What the tests of training share."""

from collections.abc import Iterator

import pytest

from vovnet.device import threads_used


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads round otherwise: bit for bit holds for a number of threads."""
    with threads_used(1):
        yield
