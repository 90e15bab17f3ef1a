"""Which object every prior of an SSD-style detector answers for, in a whole batch at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vovnet.boxes.rows import BatchRows

_LOW = 2**32 - 1  # a key's lower half


@torch.no_grad()
def match_priors(priors: Tensor, boxes: Sequence[Tensor], threshold: float = 0.5) -> Tensor:
    """Which box each prior answers for: N×A int64, -1 for none, else the box's place among all
    boxes of the batch, one image's after the other's.

    `priors` is A×4 or N×A×4 xyxy, `boxes` N tensors G×4 xyxy. Two steps as in SSD section 2.2: a
    bipartite match that gives every box the best prior still free, then every other prior takes
    its best box above `threshold`. Of equal overlaps the first box and the first prior win. No
    tensor on the way exceeds 8 MB on a CPU and 16 times that on a GPU, unless a single row of the
    overlaps or the result does.
    """
    rows = _Keyed(boxes, priors)
    best = torch.zeros((len(boxes), priors.shape[-2]), dtype=torch.int64, device=priors.device)
    wishes = _Requests(torch.zeros_like(rows.all), torch.zeros_like(rows.all))
    for part in rows.parts(rows.all, best.shape[1]):
        keys, image = rows.keys(part), rows.image[part]
        best.scatter_reduce_(0, image[:, None].expand_as(keys), keys, "amax")
        wishes.put(part, keys, image)
    owners = _bipartite(rows, wishes, torch.zeros_like(best))
    overlap = (best >> 32).int().view(torch.float32)
    own = torch.where(overlap > threshold, rows.of(best), -1)
    return torch.where(owners > 0, rows.of(owners), own)


class _Keyed(BatchRows):
    """The boxes of a batch, and keys of their overlaps with the priors of their images.

    A key is an integer with the overlap in its upper half and the row, counted from the end, in the
    lower one. The bits of a float that is not negative order as it does: so the larger key has the
    larger overlap, and of equal ones the first row. Where nothing overlaps the key is 0.
    """

    def __init__(self, boxes: Sequence[Tensor], priors: Tensor) -> None:
        super().__init__(boxes)
        self.priors = priors.float().movedim(-1, 0).contiguous()

    def keys(self, rows: Tensor) -> Tensor:
        """The keys of rows (R numbers) with all priors: R×A int64."""
        overlap = self.overlap(rows, self.priors).view(torch.int32).long()
        return torch.where(overlap > 0, overlap << 32 | len(self) - 1 - rows[:, None], 0)

    def of(self, keys: Tensor) -> Tensor:
        """The rows that keys tell of."""
        return len(self) - 1 - (keys & _LOW)


class _Requests(NamedTuple):
    """What every row asks for: its best key among the priors that would take it (0 if none would),
    and that prior's place in N×A."""

    keys: Tensor
    priors: Tensor

    def put(self, rows: Tensor, keys: Tensor, image: Tensor) -> None:
        """Set those of R rows of these images from their R×A keys."""
        self.keys[rows], prior = keys.max(1)
        self.priors[rows] = image * keys.shape[1] + prior


def _bipartite(rows: _Keyed, wishes: _Requests, owners: Tensor) -> Tensor:
    """`owners`, N×A zeros, with the keys of the rows that get a prior for themselves.

    Every row asks for the prior that it overlaps most of those that would take it; a prior keeps
    the best that ever asked, and who is sent away asks again (Gale and Shapley). Rows and priors
    rank by the same overlaps, so this ends as giving away the best free pair again and again does.
    """
    while True:
        owners.view(-1).scatter_reduce_(0, wishes.priors, wishes.keys, "amax")
        kept = wishes.keys == owners.view(-1)[wishes.priors]
        sent_away = (~kept & (wishes.keys > 0)).nonzero()[:, 0]
        if not len(sent_away):
            return owners
        for part in rows.parts(sent_away, owners.shape[1]):
            keys, image = rows.keys(part), rows.image[part]
            wishes.put(part, torch.where(keys > owners[image], keys, 0), image)
