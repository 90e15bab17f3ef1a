"""What ships inside the package, and which file a name given as weights means; without torch."""

import os
from importlib.util import find_spec
from pathlib import Path

from vovnet.errors import MissingExtraError, UnknownNameError, WeightsError
from vovnet.fetched import PUBLISHED, fetched_path, list_fetched

_FOLDER = Path(__file__).parent / "models" / "shipped"

# Name -> weights; beside those of everyday detectors lies the same as an end-to-end ONNX file,
# which needs no torch.
SHIPPED = {
    name: _FOLDER / f"{name}.safetensors"
    for name in (
        "vovdet_nano.voc",
        "vovdet_small.voc",
        "dsod300-vovnet27_slim.voc",
        "dsod300-vovnet27_slim.bccd",
        "maskrcnn-vovnet19_slim.nuclei",
    )
}


# Files that hold a network with its runtime's own instructions: ONNX and OpenVINO's IR.
MODEL_FILES = (".onnx", ".xml")


def is_model_file(name: str | Path) -> bool:
    """Whether a name is that of an ONNX file or of the .xml of an IR, which any project may have
    written."""
    return str(name).endswith(MODEL_FILES)


def shipped_onnx(name: str) -> Path | None:
    """The end-to-end ONNX file that ships beside the weights of that name, if there is one."""
    path = SHIPPED[name].with_suffix(".onnx") if name in SHIPPED else None
    return path if path is not None and path.is_file() else None


def weights_path(name_or_path: str | Path) -> Path:
    """The file of a shipped name, of a run's folder (its best weights, else its last), of a name
    that was fetched, or the path itself; did-you-mean if it is none of them, `WeightsError` for a
    folder without weights and for a name that is to be fetched first."""
    text = str(name_or_path)
    if text in SHIPPED:
        return SHIPPED[text]
    if os.path.isdir(text):
        files = [Path(text) / "weights" / f"{which}.safetensors" for which in ("best", "last")]
        if not any(map(os.path.isfile, files)):
            raise WeightsError(
                f"{text}: no best or last weights in it; give a run's folder or an exported one"
            )
        return next(filter(os.path.isfile, files))
    if os.path.exists(text) or "/" in text or text.endswith((".safetensors", *MODEL_FILES)):
        return Path(text)
    fetched = fetched_path(text)
    if os.path.isfile(fetched):
        return fetched
    if text in PUBLISHED.values():
        raise WeightsError(f"{text}: not there yet; type: vovnet fetch hf:timm/{text}")
    raise UnknownNameError("weights", text, [*SHIPPED, *list_fetched()])


def default_weights(model: str) -> str:
    """The name of the shipped weights of a model; raises `UnknownNameError` if it has none."""
    for name in SHIPPED:
        if name.partition(".")[0] == model:
            return name
    known = [name.partition(".")[0] for name in SHIPPED]
    raise UnknownNameError("model with shipped weights", model, known)


def has_torch() -> bool:
    """Whether torch is installed; it is not imported for that."""
    return find_spec("torch") is not None


def need_torch(wanted: str) -> None:
    """Raise `MissingExtraError`, which says that `wanted` needs it, if torch is not installed."""
    if not has_torch():
        raise MissingExtraError("torch", "train", wanted)
