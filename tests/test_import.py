"""`import vovnet` has no side effects and is light."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, socket, sys, threading
import torch

class NoSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("import vovnet opened a socket")

socket.socket = NoSocket
before = dict(os.environ), torch.get_num_threads(), threading.active_count()
import vovnet
after = dict(os.environ), torch.get_num_threads(), threading.active_count()
assert before == after, [b for b, a in zip(before, after) if b != a]
ours = sorted(m for m in sys.modules if m.partition(".")[0] == "vovnet")
assert len(ours) <= 30, ours
heavy = {"hotcoco", "cyclopts", "PIL.ImageDraw", "timm", "skimage"} & set(sys.modules)
assert not heavy, heavy
"""


def test_import_has_no_side_effects():
    source = Path(__file__).resolve().parents[1] / "src"
    command = f"import sys; sys.path.insert(0, {str(source)!r})\n{SCRIPT}"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "", run.stdout
