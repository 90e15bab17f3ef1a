"""`vovnet fetch` from a server of our own that answers as the Hugging Face hub does."""

import hashlib
import json
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

from vovnet.models import create_detector, create_model
from vovnet.models.convert import load_backbone
from vovnet.models.weights import load_metadata
from vovnet.shipped import weights_path
from vovnet.train.transfer import begin_from

NETWORK = "ese_vovnet19b_slim_dw"
NAME = f"{NETWORK}.ra_in1k"
SOURCE = f"hf:timm/{NAME}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).resolve().parents[2]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Hub:
    """Repositories, each a name with its files, and what has been asked for."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    large: bool = True  # files lie in LFS, told by their SHA-256, and not in git
    damage: bool = False  # files arrive with another last byte than they have

    def info(self, repository: str) -> dict[str, object]:
        files = []
        for name, content in self.repositories[repository].items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            one = {"rfilename": name, "size": len(content), "blobId": git}
            lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            files.append(one | ({"lfs": lfs} if self.large else {}))
        card = {"license": "apache-2.0"}
        return {"id": repository, "sha": COMMIT, "siblings": files, "cardData": card, "tags": []}


class Answer(BaseHTTPRequestHandler):
    """/api/models/REPOSITORY, /REPOSITORY/resolve/REVISION/FILE; large files lie elsewhere."""

    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        assert "Authorization" not in self.headers
        api = re.fullmatch(r"/api/models/([^?]+)\?blobs=True", self.path, re.I)
        file = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path)
        stored = re.fullmatch(r"/cdn/(.+)", self.path)
        if api and api[1] in self.hub.repositories:
            content = json.dumps(self.hub.info(api[1])).encode()
            self.send(200, content, {"Content-Type": "application/json"})
        elif file and file[2] == COMMIT:
            self.resolve(self.hub.repositories[file[1]][file[3]])
        elif stored:
            every = (c for files in self.hub.repositories.values() for c in files.values())
            self.send(200, next(c for c in every if sha256(c) == stored[1]), {})
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def resolve(self, content: bytes) -> None:
        digest = sha256(content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}
        if not self.hub.large:
            self.send(200, content, headers)
            return
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        # Another host, as with the hub; clients look at headers up to there.
        elsewhere = f"http://localhost:{self.headers['Host'].partition(':')[2]}"
        self.send(302, b"", headers | {"Location": f"{elsewhere}/cdn/{digest}"})

    def send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            if content and "Content-Type" not in headers:
                content = content[:-1] + bytes([content[-1] ^ self.hub.damage])
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr, which the tests read."""


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(NETWORK, pretrained=False, num_classes=10).eval()


@pytest.fixture
def hub(theirs, tmp_path, monkeypatch, randomise_norms) -> Iterator[Hub]:
    """A hub with one good repository, and an empty cache folder."""
    randomise_norms(theirs)
    content = save(theirs.state_dict(), {"format": "pt"})
    files = {"model.safetensors": content, "pytorch_model.bin": b"\x80\x02", "README.md": b"#"}
    hub = Hub({f"timm/{NAME}": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answer,), {"hub": hub})) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("VOVNET_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "theirs"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")  # which no request may carry
        yield hub
        server.shutdown()
        thread.join()


def kept(tmp_path: Path) -> list[str]:
    """All files in the cache folder."""
    files = (tmp_path / "cache").rglob("*")
    return sorted(str(f.relative_to(tmp_path / "cache")) for f in files if f.is_file())


@pytest.mark.parametrize("large", [True, False])
def test_what_is_fetched_is_timms_network(hub, run, theirs, tmp_path, large):
    hub.large = large
    outcome = run("fetch", SOURCE)
    assert outcome.code == 0, outcome.err
    path = tmp_path / "cache" / "weights" / f"{NAME}.safetensors"
    digest = sha256(hub.repositories[f"timm/{NAME}"]["model.safetensors"])
    assert outcome.out.splitlines() == [
        f"{SOURCE} at {COMMIT}: {NETWORK}, sha256 {digest}",
        str(path),
    ]
    assert outcome.err == (
        f"vovnet: next: vovnet train --data PATH --model refinedet320-{NETWORK} --weights {NAME}\n"
    )
    facts = load_metadata(path)
    assert (facts["source"], facts["revision"], facts["sha256"], facts["licence"]) == (
        *(SOURCE, COMMIT, digest, "apache-2.0"),
    )
    assert kept(tmp_path) == [f"weights/{NAME}.safetensors"]
    assert not any("README" in line or ".bin" in line for line in hub.asked)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ours = load_backbone(NAME).eval()
    features = create_model(NETWORK, features_only=True).eval()
    features.load_state_dict(ours.state_dict())
    with torch.no_grad():
        expected = theirs.forward_features(images)
        assert expected.std() > 1e-3
        for found in (ours(images)[-1], features(images)[-1]):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_offline_afterwards(hub, run, make_voc, tmp_path, monkeypatch):
    assert run("fetch", SOURCE).code == 0
    asked = len(hub.asked)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody there
    again = run("fetch", SOURCE)
    assert again.code == 0
    assert again.err.splitlines()[0] == (
        f"vovnet: {NAME}: is there already, nothing downloaded; --force fetches it again"
    )
    assert json.loads(run("fetch", SOURCE, "--json").out)["downloaded"] is False
    detector = create_detector(f"refinedet320-{NETWORK}", ("blue", "red"))
    assert "begun anew" in str(begin_from(NAME, detector))
    state = load_backbone(NAME).state_dict()
    own = detector.network.backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())
    data = f"{make_voc(tmp_path / 'voc', train=2, val=1)}@train"
    small = ("--batch", 2, "--workers", 0, "--amp", "off", "--epochs", 1, "--val", "none")
    model = f"dsod300_plain-{NETWORK}"
    trained = run("train", "--data", data, "--model", model, "--weights", NAME, *small)
    assert trained.code == 0, trained.err
    assert f"{NAME}: " in trained.err
    assert trained.out == f"runs/train/{model}\n"
    assert trained.err.splitlines()[-1] == (
        f"vovnet: next: vovnet predict IMAGE --weights runs/train/{model}"
    )
    assert len(hub.asked) == asked


def test_what_was_fetched_is_listed(hub, run, tmp_path):
    assert run("fetch", SOURCE).code == 0
    assert NAME in run("models", NAME).out
    [row] = json.loads(run("models", NAME, "--json").out)
    assert (row["kind"], row["model"], row["num_classes"]) == ("fetched", NETWORK, 10)
    weights_path(NAME).write_bytes(b"x")
    assert "damaged" in run("models", NAME).out


def test_force_fetches_again(hub, run, refused, theirs):
    assert run("fetch", SOURCE).code == 0
    before = load_metadata(weights_path(NAME))["sha256"]
    with torch.no_grad():
        theirs.stem[0].conv.weight.add_(1)
    files = hub.repositories[f"timm/{NAME}"]
    files["model.safetensors"] = save(theirs.state_dict())
    assert run("fetch", SOURCE).code == 0
    assert load_metadata(weights_path(NAME))["sha256"] == before
    assert run("fetch", SOURCE, "--force").code == 0
    assert load_metadata(weights_path(NAME))["sha256"] == sha256(files["model.safetensors"])
    hub.damage = True  # what was there stays when the new one cannot be had
    assert "does not have the checksum" in refused("fetch", SOURCE, "--force")
    assert load_metadata(weights_path(NAME))["sha256"] == sha256(files["model.safetensors"])
    hub.damage = False
    hub.repositories[f"other/{NAME}"] = files
    assert f"is there from {SOURCE}; --force replaces it" in refused("fetch", f"hf:other/{NAME}")
    weights_path(NAME).write_bytes(b"x")
    line = refused("fetch", SOURCE)
    assert "is damaged" in line
    assert line.endswith("--force fetches it again")


def broken(case: str, content: bytes, theirs: nn.Module) -> dict[str, bytes]:
    """The files of a repository that is not as it should be."""
    if case == "pickles alone":
        return {"pytorch_model.bin": pickle.dumps({}), "README.md": b""}
    if case == "no weights":
        return {"README.md": b""}
    if case == "a pickle by another name":
        return {"model.safetensors": pickle.dumps({"x": 1})}
    if case == "cut off before it was stored":
        return {"model.safetensors": content[: len(content) // 2]}
    if case == "another network":
        twin = timm.create_model("ese_vovnet19b_slim", pretrained=False, num_classes=10)
        return {"model.safetensors": save(twin.state_dict())}
    if case.startswith("our metadata"):
        settings = {"in_chans": 10**12} if case.endswith("settings") else {}
        facts = {"model": NETWORK, "settings": settings, "num_classes": 0}
        return {"model.safetensors": save({"x": torch.zeros(1)}, {"vovnet": json.dumps(facts)})}
    if case == "no VoVNet":
        return {"model.safetensors": save({"stem.0.conv.weight": torch.zeros(1)})}
    state = {k: v.clone() for k, v in theirs.state_dict().items()}
    state["stem.0.conv.weight"][0] = float("nan")
    return {"model.safetensors": save(state)}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("pickles alone", "has no model.safetensors, only pickled weights (pytorch_model.bin)"),
        ("no weights", f"{SOURCE}: has no model.safetensors"),
        ("a pickle by another name", f"{SOURCE}: a pickled checkpoint, which can run code"),
        ("cut off before it was stored", f"{SOURCE}: not a readable safetensors file"),
        ("another network", f"{SOURCE}: holds weights of ese_vovnet19b_slim, not of {NETWORK}"),
        ("no VoVNet", f"{SOURCE}: fits no VoVNet; nearest is"),
        ("our metadata", f"{SOURCE}: tensors 132 missing (stages.0."),
        ("our metadata, mad settings", f"{SOURCE}: its metadata makes no backbone"),
        ("NaN", f"{SOURCE}: 1 tensors hold NaN or infinity (stem.0.conv.weight)"),
    ],
)
def test_a_repository_that_is_no_good(hub, refused, theirs, tmp_path, case, message):
    files = hub.repositories[f"timm/{NAME}"]
    hub.repositories[f"timm/{NAME}"] = broken(case, files["model.safetensors"], theirs)
    line = refused("fetch", SOURCE)
    assert message in line
    assert kept(tmp_path) == []
    assert str(tmp_path) not in line
    if case == "pickles alone":
        assert not any("resolve" in line for line in hub.asked)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:timm/ese_vovnet39b.ra_in1k", "no public repository timm/ese_vovnet39b.ra_in1k at ht"),
        ("hf:timm/resnet50.a1_in1k", "unknown VoVNet to fetch 'resnet50'"),
        ("hf:timm/ese_vovnet39.ra_in1k", "Did you mean ese_vovnet39b"),
        ("hf:timm/ese_vovnet39b", "vovnet fetch hf:timm/ese_vovnet39b.ra_in1k"),
        ("hf:timm/vovnet39", "no pretrained weights of it are published; vovnet fetch knows hf:t"),
        ("timm/ese_vovnet39b.ra_in1k", "write hf:OWNER/NAME, such as hf:timm/ese_vovnet19b_dw.ra"),
        ("hf:timm/../ese_vovnet39b.x", "write hf:OWNER/NAME"),
        (f"hf:{NAME}", "write hf:OWNER/NAME"),
    ],
)
def test_a_name_that_is_none(hub, refused, tmp_path, source, message):
    assert message in refused("fetch", source)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("large", [True, False])
def test_a_file_that_changed_on_the_way(hub, refused, tmp_path, large):
    hub.damage, hub.large = True, large
    line = refused("fetch", SOURCE)
    assert f"{SOURCE}: model.safetensors does not have the checksum that the hub tells" in line
    assert kept(tmp_path) == []


def test_without_network(hub, refused, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody there
    line = refused("fetch", SOURCE)
    assert f"{SOURCE}: cannot be downloaded from http://127.0.0.1:9: " in line
    assert kept(tmp_path) == []


def test_without_the_extra(hub, refused, run, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "huggingface_hub", None)
        line = refused("fetch", SOURCE)
        assert "huggingface_hub is not installed" in line
        assert line.endswith("pip install 'vovnet[hub]'")
        assert hub.asked == []
    assert run("fetch", SOURCE).code == 0
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert run("fetch", SOURCE).code == 0  # which has nothing to download


def test_a_cache_folder_that_cannot_be_written(hub, refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VOVNET_CACHE", str(tmp_path / "file"))
    assert "cannot write: Not a directory" in refused("fetch", SOURCE)


def test_a_name_that_is_not_there_yet_says_how_to_fetch_it(hub, refused, voc, tmp_path):
    options = ("--data", voc, "--model", "refinedet320-ese_vovnet39b")
    line = refused("train", *options, "--weights", "ese_vovnet39b.ra_in1k")
    assert line.endswith("not there yet; type: vovnet fetch hf:timm/ese_vovnet39b.ra_in1k")
    assert "unknown weights 'ese_vovnet39b'" in refused(
        "train", *options, "--weights", "ese_vovnet39b"
    )
    assert hub.asked == []


def test_a_file_of_that_name_comes_before_what_was_fetched(hub, run, tmp_path):
    assert run("fetch", SOURCE).code == 0
    assert weights_path(NAME).parent == tmp_path / "cache" / "weights"
    save_file({}, tmp_path / NAME)
    assert weights_path(NAME) == Path(NAME)


def test_a_backbone_is_no_detector(hub, run, refused, voc):
    assert run("fetch", SOURCE).code == 0
    line = refused("val", voc, "--weights", NAME)
    assert line.endswith(f"vovnet train --model FAMILY-{NETWORK} --weights {NAME}")
    line = refused("train", "--data", voc, "--weights", NAME)
    assert line.endswith(f"{NAME}: a backbone's; give --model FAMILY-{NETWORK} too")


def test_nothing_else_downloads():
    """But for the pictures that somebody gives the addresses of."""
    network = re.compile(
        r"(?m)^\s*(?:import|from) "
        r"(?:huggingface_hub|urllib(?!\.parse)|requests|httpx|http\.client)|pretrained=True"
    )
    files = {p: p.read_text() for p in (ROOT / "src").rglob("*.py")}
    found = {path.name for path, text in files.items() if network.search(text)}
    assert found == {"fetch.py", "web.py"}
