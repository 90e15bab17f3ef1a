"""Pretrained weights from a Hugging Face hub. Only `vovnet fetch` comes here; nothing else
downloads."""

import hashlib
import os
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError, WeightsError
from vovnet.fetched import PUBLISHED, fetched_path, how_to_fetch
from vovnet.models import vovnet
from vovnet.models.convert import convert, load_backbone
from vovnet.models.weights import load_metadata

_FILE = "model.safetensors"
_PICKLED = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar")
_EXAMPLE = f"hf:timm/{next(iter(PUBLISHED.values()))}"
_SOURCE = re.compile(r"hf:(?P<owner>\w[\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)")


class Fetched(NamedTuple):
    """Weights in the user's cache folder: their name, file and origin, and whether they were
    downloaded now."""

    name: str
    path: str
    model: str
    source: str
    revision: str | None
    sha256: str  # of the file as the hub has it
    downloaded: bool


def fetch(source: str, *, force: bool = False) -> Fetched:
    """Download `hf:OWNER/NETWORK.TAG`, convert it, and keep it in the cache folder by its name.

    What is there already is not downloaded again, unless `force`. No access token is sent. Raises
    `VovnetError` for what cannot be had or is not as it should be; then nothing is kept.
    """
    name, network = _names(source)
    path = fetched_path(name)
    if path.exists() and not force:
        return _there_already(path, name, source)
    hub = _hub()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
            facts = _download(hub, source, Path(folder))
            ours = _converted(Path(folder) / _FILE, source, network, facts)
            os.replace(ours, path)
    except OSError as error:
        raise VovnetError(f"{path}: cannot write: {error.strerror or error}") from None
    return Fetched(name, str(path), network, source, facts["revision"], facts["sha256"], True)


def _names(source: str) -> tuple[str, str]:
    """The name to keep it by, and the network that it must be for."""
    found = _SOURCE.fullmatch(source)
    if not found:
        raise VovnetError(f"fetch {source}: write hf:OWNER/NAME, such as {_EXAMPLE}")
    network, dot, _ = found["name"].partition(".")
    if network not in vovnet.SPECS:
        raise UnknownNameError("VoVNet to fetch", network, vovnet.SPECS)
    if not dot:
        raise VovnetError(f"{source}: {how_to_fetch(network)}")
    return found["name"], network


def _there_already(path: Path, name: str, source: str) -> Fetched:
    try:
        facts = load_metadata(path)
        there = Fetched(
            *(name, str(path), facts["model"], facts["source"]),
            *(facts["revision"], facts["sha256"], False),
        )
    except (WeightsError, KeyError) as error:
        raise WeightsError(f"{path}: is damaged ({error}); --force fetches it again") from None
    if there.source != source:
        raise VovnetError(f"{path}: is there from {there.source}; --force replaces it")
    return there


def _hub() -> ModuleType:
    try:
        import huggingface_hub.errors
        import huggingface_hub.utils.logging
    except ModuleNotFoundError:
        raise MissingExtraError("huggingface_hub", "hub") from None
    huggingface_hub.utils.logging.set_verbosity_error()  # what goes wrong we say ourselves
    return huggingface_hub


def _download(hub: ModuleType, source: str, folder: Path) -> dict[str, Any]:
    """Put the repository's weights into `folder`; where they came from, as metadata.

    The repository's own account of the file comes first, so that what arrives can be checked.
    """
    # huggingface_hub reads the variable when it is imported, which may be too early.
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=False, library_name="vovnet")
    repository = source.removeprefix("hf:")
    try:
        info = api.model_info(repository, files_metadata=True, timeout=30)
    except hub.errors.RepositoryNotFoundError:
        raise VovnetError(
            f"{source}: no public repository {repository} at {api.endpoint}; check the name"
        ) from None
    except Exception as error:  # of the many that network and hub have
        raise _unreachable(source, api.endpoint, error) from None
    files = {file.rfilename: file for file in info.siblings or ()}
    if _FILE not in files:
        raise VovnetError(f"{source}: {_why_no_file(files)}")
    try:
        path = api.hf_hub_download(repository, _FILE, revision=info.sha, local_dir=folder)
    except Exception as error:
        raise _unreachable(source, api.endpoint, error) from None
    sha256 = _checked(Path(path), source, files[_FILE])
    licence = getattr(info.card_data, "license", None)
    return {"source": source, "revision": info.sha, "sha256": sha256, "licence": licence}


def _unreachable(source: str, endpoint: str, error: Exception) -> VovnetError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return VovnetError(f"{source}: cannot be downloaded from {endpoint}: {reason}")


def _why_no_file(names: Any) -> str:
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    if not pickled:
        return f"has no {_FILE}"
    return f"has no {_FILE}, only pickled weights ({pickled[0]}), which can run code when loaded"


def _checked(path: Path, source: str, told: Any) -> str:
    """The file's SHA-256; raises `WeightsError` if its checksum is not the one that was told: a
    large file's SHA-256, a small one's git hash."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if told.lfs is not None:
        same = told.lfs.sha256 == sha256
    else:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content)
        same = told.blob_id == blob.hexdigest()
    if not same:
        raise WeightsError(
            f"{source}: {_FILE} does not have the checksum that the hub tells; "
            f"it was damaged on the way, fetch it again"
        )
    return sha256


def _converted(path: Path, source: str, network: str, facts: dict[str, Any]) -> Path:
    """The file beside `path` with our names and metadata; raises `WeightsError` unless it makes
    the network that `source` is named for."""
    ours = path.with_name("ours.safetensors")
    try:
        model = convert(path, ours, facts=facts).model
        load_backbone(ours)
    except VovnetError as error:
        reason = str(error).replace(str(path), source).replace(str(ours), source)
        raise WeightsError(reason) from None
    if model != network:
        raise WeightsError(f"{source}: holds weights of {model}, not of {network}")
    return ours
