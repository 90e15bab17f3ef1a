"""Which device to compute on."""

import torch

from vovnet.errors import VovnetError


def usable_device(name: str) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); `VovnetError` if it cannot be used."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # "meta" exists, but holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise VovnetError(f"device {name}: not usable here ({reason}); try cpu") from None
    return device
