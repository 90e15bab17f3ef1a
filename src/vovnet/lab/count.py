"""What one forward pass costs on paper: operations, memory access, bytes, activations.

Counted from the shapes of the operators that run, on the meta device: nothing is computed, and
the caller's model is neither moved nor changed.
"""

import copy
from dataclasses import dataclass
from itertools import chain
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

# Operators that only reserve memory: nothing is read or written.
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}

# Operators that write or move numbers without arithmetic on them.
_MOVES = {
    *("cat", "stack", "clone", "copy", "_to_copy", "repeat", "constant_pad_nd", "roll", "flip"),
    *("index", "index_select", "gather", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("upsample_nearest2d", "fill", "zero", "zeros", "ones", "full", "zeros_like", "ones_like"),
    *("full_like", "new_zeros", "new_ones", "new_full", "arange", "scalar_tensor", "index_put"),
}


@dataclass(frozen=True)
class LayerCount:
    """The convolutions that one module ran.

    `lower_bound` is the least memory access that k×k convolutions with so many macs can have on
    such maps, 2·sqrt(hw·B/k²) + B/(hw) with B = macs, reached by an ungrouped convolution of
    stride 1 with as many input as output channels (paper section 2.2, ShuffleNetV2 guideline 1).
    `ratio` is memory_access / lower_bound.
    """

    name: str
    kind: str
    macs: int
    memory_access: int
    lower_bound: float
    ratio: float


@dataclass(frozen=True)
class Counts:
    """The cost of one forward pass of the whole batch in eval mode.

    - `params`: elements of all parameters, shared ones once.
    - `macs`: multiply–accumulates of convolutions and matrix products, without biases (the
      paper's "FLOPs"); `flops` is 2·macs.
    - `memory_access`: elements, the paper's equation 1 summed over the convolutions. Written as
      input + output + weights (k²·ci·co/groups) it is hw(ci+co) + k²·ci·co where the stride is 1,
      and holds for other strides too. A deformable convolution also reads its offsets and mask.
    - `bytes_moved`: every operator that is not a view reads its inputs and weights and writes its
      outputs once, with no cache and no fusion; integers have their own size.
    - `activations`: output elements of the operators counted in macs (as fvcore and timm count).
    - `uncounted_ops`: sorted names of operators that did arithmetic and are not in macs.
    - `layers`: one row per module that ran convolutions, in order of first run.
    """

    params: int
    macs: int
    flops: int
    memory_access: int
    bytes_moved: int
    activations: int
    uncounted_ops: tuple[str, ...]
    layers: tuple[LayerCount, ...]


# Inference mode would hide convolutions inside composite operators.
@torch.inference_mode(False)
@torch.no_grad()
def count(
    model: nn.Module,
    image_size: tuple[int, int],
    *,
    batch: int = 1,
    bytes_per_element: int = 4,
) -> Counts:
    """Count one forward pass of batch×3×height×width images; `image_size` is (height, width).

    `bytes_per_element` is the size of a floating-point number in `bytes_moved`: 4 for float32,
    2 for half precision. The counts of operations are torch's `FlopCounterMode`'s.
    """
    twin = _meta_copy(model)
    # Registered by torchvision: where that is not imported, no model has the operator.
    deformable = getattr(torch.ops.torchvision, "deform_conv2d", None)
    flops = FlopCounterMode(display=False, custom_mapping={deformable: _deformable_flops})
    modules = ModuleTracker()
    tally = _Tally(modules, set(flops.flop_registry), bytes_per_element)
    # The default device catches tensors that a forward makes without naming one.
    with torch.device("meta"), modules, flops, tally:
        twin(torch.empty(batch, 3, *image_size, device="meta"))
    total = flops.get_total_flops()
    layers = tally.layers()
    return Counts(
        params=sum(p.numel() for p in model.parameters()),
        macs=total // 2,
        flops=total,
        memory_access=sum(layer.memory_access for layer in layers),
        bytes_moved=tally.bytes_moved,
        activations=tally.activations,
        uncounted_ops=tuple(sorted(tally.uncounted)),
        layers=layers,
    )


def _meta_copy(model: nn.Module) -> nn.Module:
    """The model in eval mode and float32 with shapes in place of numbers.

    Tensors are put into deepcopy's memo beforehand, so the weights are never duplicated.
    """
    memo = {
        id(t): torch.empty_like(
            t, device="meta", dtype=torch.float32 if t.is_floating_point() else t.dtype
        )
        for t in chain(model.parameters(), model.buffers())
    }
    return copy.deepcopy(model, memo).eval()


def _deformable_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """2 × output positions × weights; the bilinear sampling is left out, like biases."""
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


class _Tally(TorchDispatchMode):
    """Adds up what every operator reads and writes; must be entered inside FlopCounterMode."""

    def __init__(self, modules: ModuleTracker, counted: set[Any], bytes_per_element: int) -> None:
        super().__init__()
        self.modules = modules
        self.counted = counted
        self.bytes_per_element = bytes_per_element
        self.bytes_moved = 0
        self.activations = 0
        self.uncounted: set[str] = set()
        # (module, kind) -> macs, memory access and lower bound of every call.
        self.calls: dict[tuple[str, str], list[tuple[int, int, float]]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        # In-place operators do what their namesakes do.
        namespace, _, name = str(operator).removesuffix("_").partition(".")
        if name in _ALLOCATIONS or _is_view(func):
            return out
        outputs = _tensors(out)
        self.bytes_moved += sum(map(self._bytes, [*_tensors((args, kwargs)), *outputs]))
        if operator in self.counted:
            self.activations += sum(t.numel() for t in outputs)
        elif name not in _MOVES:
            self.uncounted.add(f"{namespace}.{name}")
        if operator is torch.ops.aten.convolution:
            x, weight, transposed, groups = args[0], args[1], args[6], args[8]
            # A filter costs once for each position where it is laid on, in or out.
            kind, applied = ("transposed conv", x) if transposed else ("conv", out)
            self._add_convolution(kind, weight, groups, applied, [x, weight, out])
        elif str(operator) == "torchvision.deform_conv2d":
            x, weight, offset, mask = args[:4]
            use_mask = args[13]  # without one, torchvision passes a placeholder
            moved = [x, weight, offset, out, *([mask] if use_mask else [])]
            self._add_convolution("deformable conv", weight, args[11], out, moved)
        return out

    def _bytes(self, tensor: Tensor) -> int:
        size = self.bytes_per_element if tensor.is_floating_point() else tensor.element_size()
        return tensor.numel() * size

    def _add_convolution(
        self, kind: str, weight: Tensor, groups: int, applied: Tensor, moved: list[Tensor]
    ) -> None:
        positions = applied.numel() // applied.shape[1]
        macs = positions * weight.numel()
        kernel = weight.shape[2:]
        bound = 2 * sqrt(positions * macs / prod(kernel)) + macs / positions
        if groups > 1:
            kind = f"{'depthwise' if weight.shape[1] == 1 else 'grouped'} {kind}"
        module = max(self.modules.parents, key=len)
        key = (module.partition(".")[2] or module, f"{kind} {'×'.join(map(str, kernel))}")
        call = (macs, sum(t.numel() for t in moved), bound)
        self.calls.setdefault(key, []).append(call)

    def layers(self) -> tuple[LayerCount, ...]:
        """The rows so far, the calls of one module summed."""
        rows = []
        for (name, kind), calls in self.calls.items():
            macs = sum(call[0] for call in calls)
            access = sum(call[1] for call in calls)
            bound = sum(call[2] for call in calls)
            rows.append(LayerCount(name, kind, macs, access, bound, access / bound))
        return tuple(rows)


def _is_view(func: Any) -> bool:
    """Whether an operator's outputs share its input's memory without writing to it."""
    if func.overloadpacket is torch.ops.aten._unsafe_view:
        return True
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
