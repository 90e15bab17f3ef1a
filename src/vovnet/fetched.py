"""Weights that `vovnet fetch` has put into the user's cache folder, by the name they came under."""

from pathlib import Path

from vovnet.files import cache_folder

# What timm publishes of our networks (timm 1.0.31), as repositories of huggingface.co/timm.
PUBLISHED = {
    "ese_vovnet19b_dw": "ese_vovnet19b_dw.ra_in1k",
    "ese_vovnet39b": "ese_vovnet39b.ra_in1k",
    "ese_vovnet57b": "ese_vovnet57b.ra4_e3600_r256_in1k",
}


def fetched_path(name: str) -> Path:
    """The file of a fetched name, whether it is there or not."""
    return cache_folder() / "weights" / f"{name}.safetensors"


def list_fetched() -> list[str]:
    """Names of what has been fetched, sorted."""
    files = fetched_path("*").parent.glob("[!.]*.safetensors")
    return sorted(path.name.removesuffix(".safetensors") for path in files)


def how_to_fetch(network: str) -> str:
    """What to type for pretrained weights of a network, or for which ones there are some."""
    if name := PUBLISHED.get(network):
        return (
            f"pretrained weights come by command only: vovnet fetch hf:timm/{name}; then "
            f"load_backbone({name!r}), or train --weights {name}"
        )
    names = ", ".join(f"hf:timm/{name}" for name in PUBLISHED.values())
    return f"no pretrained weights of it are published; vovnet fetch knows {names}"
