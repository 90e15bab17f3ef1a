import getpass
import json
import os
import platform
import socket
import sys
from importlib import import_module
from importlib.metadata import version

import torch

from vovnet import __version__
from vovnet.environment import environment


def test_it_names_the_machine():
    found = environment()
    assert found["versions"]["vovnet"] == __version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["python"] == platform.python_version()
    for name, package in (("numpy", "numpy"), ("pillow", "PIL"), ("torchvision", "torchvision")):
        told = found["versions"][name].partition("+")[0]  # the build is told of torch only
        assert import_module(package).__version__.partition("+")[0] == told
    for name, package in (("onnxruntime", "onnxruntime"), ("skimage", "scikit-image")):
        assert found["versions"][name] == version(package)
    assert {"openvino", "ncnn"} <= found["versions"].keys()
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()
    assert found["cpu"]["cores"] >= found["cpu"]["usable_cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert len(found["cuda"]) == torch.cuda.device_count()


def test_it_is_json_and_holds_nothing_personal():
    text = json.dumps(environment())
    assert f'"{os.path.expanduser("~")}' not in text
    assert f'"{socket.gethostname()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_it_never_raises(monkeypatch):
    def broken(*_):
        raise OSError("not here")

    def too_old():
        raise AttributeError("no get_capabilities")

    def no_driver(_):
        raise RuntimeError("no NVIDIA driver")

    monkeypatch.setattr(sys.modules["vovnet.environment"], "Path", broken)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "sysconf", broken, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", too_old, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", no_driver)
    found = environment()
    assert found["memory_bytes"] is None
    assert found["cpu"]["usable_cores"] == found["cpu"]["cores"]
    assert found["cpu"]["flags"] == found["cuda"] == []


def test_extras_tell_what_they_lack(monkeypatch):
    lines = ["numpy>=2", "no-such-a; extra == 'one'", "numpy>=2; extra == 'one'"]
    lines += ["no_such.b>=1 ; extra == 'two'", "vovnet[one] ; extra == 'two'"]
    lines += ["vovnet[one,two]; extra == 'all'"]
    monkeypatch.setattr(sys.modules["vovnet.environment"], "requires", lambda _: lines)
    assert environment()["extras_lack"] == {
        "one": ["no-such-a"],
        "two": ["no-such-a", "no_such.b"],
    }


def test_the_first_distribution_that_is_installed_counts():
    from vovnet.environment import _version

    assert _version("torch-of-nobody", "numpy", "pillow") == version("numpy")
    assert _version("torch-of-nobody") is None


def test_the_processors_name_is_the_first_that_linux_tells(monkeypatch, tmp_path):
    module = sys.modules["vovnet.environment"]
    told = tmp_path / "cpuinfo"
    told.write_text("processor: 0\nmodel name\t: One 7\nprocessor: 1\nmodel name\t: Two\n")
    monkeypatch.setattr(module, "Path", lambda _: told)
    assert module._cpu_model() == "One 7"
    told.write_text("")
    monkeypatch.setattr(platform, "processor", lambda: "another")
    assert module._cpu_model() == "another"
