import pytest
import torch

from vovnet.lab.roofline import Roofs, place


def test_place():
    few = place(flops=100, bytes_moved=50, matmul=1000.0, copy=10.0)
    assert (few.intensity_flops_per_byte, few.attainable_flops_per_s, few.bound) == (
        *(2.0, 20.0),
        "memory",
    )
    many = place(flops=100_000, bytes_moved=50, matmul=1000.0, copy=10.0)
    assert (many.attainable_flops_per_s, many.bound) == (1000.0, "compute")


def test_the_roofs_are_computed_and_copied():
    roofs = Roofs(torch.device("cpu"))
    matmul, copy = roofs.sample()
    assert len(matmul) >= 3 <= len(copy)
    assert min(matmul) > 0 < min(copy)
    expected = roofs._a[:4].double() @ roofs._b.double()
    assert roofs._product[:4].double() == pytest.approx(expected, abs=1e-2)
    assert torch.equal(roofs._copy, roofs._source)
    assert "1536" in roofs.matmul
