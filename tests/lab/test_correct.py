import pytest
import torch

from vovnet.lab.correct import BOUNDS, compare


def test_relative_error_over_all_outputs_together():
    reference = [torch.tensor([3.0]), torch.tensor([[4.0, 0.0]])]
    outputs = [torch.tensor([3.0]), torch.tensor([[4.0, 0.05]])]
    error, correct = compare(outputs, reference, "bf16")
    assert error == pytest.approx(0.01)
    assert correct is True
    assert compare(outputs, reference, "fp32") == (pytest.approx(0.01), False)
    assert compare(reference, reference, "fp32") == (0.0, True)
    small = [[tensor / 100 for tensor in tensors] for tensors in (outputs, reference)]
    assert compare(*small, "bf16") == (pytest.approx(0.01, rel=1e-4), True)


def test_a_narrower_format_has_a_wider_bound():
    assert BOUNDS["fp32"] < BOUNDS["fp16"] < BOUNDS["bf16"] < BOUNDS["int8"] < 1


@pytest.mark.parametrize(
    ("outputs", "reference", "correct"),
    [
        ([torch.ones(3)], [torch.ones(2)], False),
        ([torch.ones(2)], [torch.ones(2), torch.ones(2)], False),
        ([torch.tensor([1.0, float("nan")])], [torch.ones(2)], False),
        ([torch.tensor([1.0, float("inf")])], [torch.ones(2)], False),
        ([torch.ones(2)], [torch.zeros(2)], None),
        ([torch.ones(2)], [torch.tensor([1.0, float("nan")])], None),
    ],
)
def test_what_cannot_be_compared(outputs, reference, correct):
    assert compare(outputs, reference, "fp32") == (None, correct)


@pytest.mark.parametrize(
    ("precision", "bound"), [("fp32", 1e-3), ("fp16", 2e-2), ("bf16", 5e-2), ("int8", 0.25)]
)
def test_the_bounds_that_are_documented(precision, bound):
    reference = [torch.tensor([3.0, 4.0])]
    for share, correct in ((0.99, True), (1.01, False)):
        outputs = [torch.tensor([3.0, 4.0 + 5 * bound * share])]
        assert compare(outputs, reference, precision) == (
            pytest.approx(bound * share, rel=1e-4),
            correct,
        )
