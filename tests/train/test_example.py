"""The example of docs/training.md, as it stands there."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.slow
def test_functions_are_called_on_the_way(make_voc, tmp_path, monkeypatch, capsys):
    make_voc(tmp_path / "path" / "to" / "dataset")
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    runpy.run_path(str(tmp_path / "example.py"))
    lines = capsys.readouterr().out.splitlines()
    assert sum(" of 4 {'class'" in line for line in lines) == 12
    assert [line.split()[0] for line in lines if re.match(r"\d [.\d]+$", line)] == ["1", "2", "3"]
    assert (tmp_path / "runs" / "mine" / "weights" / "best.safetensors").is_file()
