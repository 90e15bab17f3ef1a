import getpass
import json
import os
import socket
import sys

import torch

from vovnet import __version__
from vovnet.lab import environment


def test_it_names_the_machine():
    found = environment()
    assert found["versions"]["vovnet"] == __version__
    assert found["versions"]["torch"] == torch.__version__
    assert {"python", "torchvision", "numpy", "pillow"} <= found["versions"].keys()
    assert {"onnxruntime", "openvino", "ncnn", "skimage"} <= found["versions"].keys()
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

    # By sys.modules, as the package's attribute of this name is the function.
    monkeypatch.setattr(sys.modules["vovnet.lab.environment"], "Path", broken)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "sysconf", broken, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", too_old, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", no_driver)
    found = environment()
    assert found["memory_bytes"] is None
    assert found["cpu"]["usable_cores"] == found["cpu"]["cores"]
    assert found["cpu"]["flags"] == found["cuda"] == []
