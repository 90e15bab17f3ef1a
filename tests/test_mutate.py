"""The maintainers' tool that makes mutants, on a few lines by hand."""

import runpy
from pathlib import Path
from types import FunctionType

import pytest

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "mutate.py"))
SOURCE = '''LIMIT = 0.5


def area(a: int, b=2):
    """Words, 1."""
    if not a or b <= LIMIT:
        raise ValueError(f"{a + 1}")
    assert a + 1
    sides = min(a, -b), zip(a, b, strict=True)
    a += 1
    return a * b


def shape(x):
    x.resize(
        x.amax(True),
    )
'''
FAULTS = [
    (1, "constant", "0.5", "1.0", ()),
    (4, "constant", "2", "3", ()),
    (6, "boolean", "not a or b <= LIMIT", "not a and b <= LIMIT", (6,)),
    (6, "negation", "not a", "a", (6,)),
    (6, "comparison", "b <= LIMIT", "b < LIMIT", (6,)),
    (6, "comparison", "b <= LIMIT", "b > LIMIT", (6,)),
    (9, "name", "min", "max", (9,)),
    (9, "negation", "-b", "b", (9,)),
    (10, "statement", "a += 1", "pass", (10,)),
    (10, "constant", "1", "2", (10,)),
    (11, "return", "return a * b", "return None", (11,)),
    (11, "arithmetic", "a * b", "a / b", (11,)),
    (15, "statement", "x.resize(x.amax(True))", "pass", (15, 16, 17)),
    (16, "name", "x.amax", "x.amin", (15, 16, 17)),
    (16, "constant", "True", "False", (15, 16, 17)),
]


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setitem(TOOL["mutants"].__globals__, "ROOT", tmp_path)
    path = tmp_path / "area.py"
    path.write_text(SOURCE)
    return path


def test_faults_are_small_and_not_in_messages(file):
    found = [(m.place[0], *m[3:6], m.lines) for m in TOOL["mutants"](file)]
    assert found == FAULTS


def test_a_mutant_computes_something_else(file):
    mutant = next(m for m in TOOL["mutants"](file) if m.after == "a / b")
    assert mutant.key == "area.py:11:11 arithmetic: a * b -> a / b"
    names = {"min": min, "zip": lambda *pair, strict: pair}
    FunctionType(compile(TOOL["mutated"](mutant), "area", "exec"), names)()
    assert names["area"](5, 3) == 2  # (5 + 1) / 3


def test_tests_that_run_the_line_nearest_and_quickest_first():
    mutant = TOOL["Mutant"]("src/vovnet/losses/x.py", 0, (7, 0), "", "", "", (7,))
    traces = {
        "tests/a.py::other": [0.1, {"src/vovnet/losses/y.py": [7]}],
        "tests/a.py::line": [0.1, {"src/vovnet/losses/x.py": [3, 7]}],
        "tests/losses/test_x.py::slow": [3, {"src/vovnet/losses/x.py": [7]}],
        "tests/losses/test_x.py::quick": [2, {"src/vovnet/losses/x.py": [7]}],
        "tests/losses/test_x.py::past": [1, {"src/vovnet/losses/x.py": [3]}],
    }
    own = ["tests/losses/test_x.py::quick", "tests/losses/test_x.py::slow"]
    assert TOOL["_tests"](mutant, traces, 60) == [*own, "tests/a.py::line"]
    assert TOOL["_tests"](mutant, traces, 2) == own[:1]
    whole = mutant._replace(lines=())  # of no function
    assert len(TOOL["_tests"](whole, traces, 60)) == 4
