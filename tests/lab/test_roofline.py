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


def test_a_second_is_two_operations_a_product_and_two_bytes_a_copy(monkeypatch):
    """1536³ products with as many sums, and 128 MiB that are read and written, in half a second."""
    roofs = Roofs(torch.device("cpu"))
    monkeypatch.setattr(roofs, "_time", lambda call: [0.5, 1.0])
    matmul, copy = roofs.sample()
    assert matmul == [4 * 1536**3, 2 * 1536**3]
    assert copy == [4 * 2**27, 2 * 2**27]
    assert roofs.matmul == "float32 matrix product 1536³"
    assert roofs.copy == "copy of 128 MiB, read and written bytes"
    assert roofs._source.nbytes == 2**27


def test_a_roof_is_that_of_memory_only_below_the_ridge():
    ridge = place(flops=500, bytes_moved=5, matmul=1000.0, copy=10.0)
    assert (ridge.attainable_flops_per_s, ridge.bound) == (1000.0, "compute")
