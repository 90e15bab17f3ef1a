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
