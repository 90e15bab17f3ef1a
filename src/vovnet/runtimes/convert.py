"""Networks made convertible: plain tensors out, one number format within, and an ONNX file."""

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vovnet.errors import MissingExtraError, VovnetError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FlatNetwork(nn.Module):
    """A copy of a network that computes in `dtype` and returns a flat tuple of float32 tensors.

    The order is that of torch's pytree: named tuples and lists in order, dictionaries by insertion.
    The copy is in eval mode and wants no gradients; the caller's network is left as it is.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.dtype = dtype
        if dtype != torch.float32:
            self.network.to(dtype)
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.float()  # statistics lose digits that every activation then lacks

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """N×3×H×W float32 to the flat outputs, float32 too."""
        if self.dtype == torch.float32:
            return tuple(_tensors(self.network(images)))
        outputs = _tensors(self.network(images.to(self.dtype)))
        return tuple(tensor.float() for tensor in outputs)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def write_onnx(
    network: nn.Module,
    example: Tensor,
    path: Path,
    *,
    dynamic_batch: bool = False,
    opset: int | None = None,
    fold: bool = True,
) -> None:
    """Write a network as one ONNX file with its weights inside: "images" in, "output0"… out.

    `example` is N×3×H×W; with `dynamic_batch` the file takes any batch, else exactly N. All is
    float32; `opset` is torch's own unless given. The exporter folds batch norms into their
    convolutions, unless `fold` is off. Raises
    `MissingExtraError` without onnxscript, `VovnetError` naming the operator that ONNX does not
    have.
    """
    try:
        import onnxscript  # noqa: F401  # torch imports it late, and says less
    except ImportError:
        raise MissingExtraError("onnxscript", "export") from None
    if dynamic_batch and len(example) == 1:
        example = example.repeat(2, 1, 1, 1)  # a batch of one would be taken for a constant
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    flat = FlatNetwork(network).cpu()
    with converting("ONNX"), torch.no_grad():
        torch.onnx.export(
            flat,
            (example,),
            path,
            input_names=["images"],
            output_names=[f"output{i}" for i in range(len(flat(example)))],
            dynamic_shapes=(batch,) if dynamic_batch else None,
            external_data=False,  # a second file gets lost when the first is copied
            dynamo=True,
            opset_version=opset,
            optimize=fold,
            verbose=False,
        )


@contextlib.contextmanager
def converting(target: str) -> Iterator[None]:
    """Around the work of converters: nothing printed, and one line, not their errors, if they fail.

    Their kinds are dozens, from tracing to translation, and without a common one.
    """
    try:
        with _quiet():
            yield
    except VovnetError:
        raise
    except Exception as error:
        raise VovnetError(f"cannot convert to {target}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The operator that is missing, where the error or a cause of it names one, else its line."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    text = "\n".join(map(str, reversed(chain)))
    if "C++ compiler" in text:
        return "it needs a C++ compiler and found none; install g++, or set CXX to one"
    if operator := re.search(r"\b(?:aten|torchvision|prims)(?:\.|::)\w+", text):
        return f"operator {operator[0]} is not supported"
    lines = (line.strip() for line in text.splitlines())
    return next(filter(None, lines), repr(error))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters talk: on standard output, in logs and in warnings about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
