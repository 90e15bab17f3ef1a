"""A request to stop, as a terminal or a scheduler sends it."""

import os
import signal
import subprocess
import sys

import pytest

from vovnet.errors import is_out_of_memory
from vovnet.train.stopping import StopRequest


@pytest.fixture
def worker_alarm():
    """What torch does while it has loader workers: any that dies raises in the main process."""

    def told(number, frame):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    before = signal.signal(signal.SIGCHLD, told)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_the_end_of_workers_is_expected_once_a_stop_is_asked(worker_alarm):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    with StopRequest() as stop:
        with pytest.raises(RuntimeError, match="Terminated"):
            subprocess.run([sys.executable, "-c", ""], check=True)
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_signal_interrupts(worker_alarm):
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("name", "memory"), [("Killed", True), ("Terminated", False)])
def test_only_a_killed_worker_ran_out_of_memory(name, memory):
    error = RuntimeError(f"DataLoader worker (pid 1) is killed by signal: {name}. ")
    assert is_out_of_memory(error) == memory
