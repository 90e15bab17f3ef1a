"""The house rules for code, checked so that growth cannot undo them."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"

FILE_LINES, FUNCTION_LINES, CLASS_LINES, CLASS_METHODS = 500, 80, 250, 15
MEDIAN_FUNCTION_LINES, P95_FUNCTION_LINES = 15, 50

# Imports run downward only; units of one floor do not know each other.
FLOORS = {
    "__main__": 7,
    "cli": 6,
    **dict.fromkeys(("deploy", "serve", "study", "predict"), 5),
    "train": 4,
    "review": 3.5,  # what one looks at after training: a page, and its figures
    **dict.fromkeys(("evaluate", "lab"), 3),
    **dict.fromkeys(("data", "runtimes"), 2),
    "load": 2.5,  # one way to a detector, whatever computes it
    "models": 1,
    "boxes": 0.4,
    "detect": 0.3,  # from pictures to what is found in them, with NumPy alone
    "losses": 0.5,  # a detector is put together from network, criterion and decoder
    **dict.fromkeys(("errors", "files", "device", "distributed", "streams", "text"), 0),
    "fetched": 0.05,  # weights that `vovnet fetch` has put into the cache folder
    "shipped": 0.1,  # which file a name of weights means
    "input_spec": 0.2,  # how a picture becomes a network's input
    "detections": 0.2,
    "charts": 0.1,  # drawings of reports: SVG, PNG, pages
    "images": 0.1,  # pictures from anywhere, safely
    "environment": 0.1,  # the machine and the versions
    "limits": -0.5,  # what the machine has, told without torch
    "interrupts": -0.5,
}

# What imports torch, or a package that comes with it, when it is imported. All else, and every new
# room, does its work in a light installation, or imports these only where it cannot do without.
TORCH = (
    *("boxes", "losses", "models", "runtimes", "lab", "train", "study", "deploy"),
    *("device", "distributed", "evaluate/together"),
    *("data/cache", "data/compose", "data/draws", "data/loader", "data/resident", "data/ssd"),
)
TRAINING_PACKAGES = {"torch", "torchvision", "safetensors", "filelock", "jinja2"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> dict[str, ast.Module]:
    paths = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text()) for p in paths}


EVERYWHERE = sources("src", "tests", "benchmarks", "tools")
PACKAGE = {file: tree for file, tree in EVERYWHERE.items() if file.startswith("src/")}


def functions(tree: ast.AST) -> Iterator[Function]:
    return (n for n in ast.walk(tree) if isinstance(n, Function))


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))


def length(node: Function | ast.ClassDef) -> int:
    return node.end_lineno - node.lineno + 1


def too_long(file: str, tree: ast.Module) -> Iterator[str]:
    for nodes, most in ((functions(tree), FUNCTION_LINES), (classes(tree), CLASS_LINES)):
        for node in nodes:
            if length(node) > most:
                yield f"{file}:{node.lineno} {node.name}: {length(node)} lines, at most {most}"
    for node in classes(tree):
        methods = sum(isinstance(n, Function) for n in node.body)
        if methods > CLASS_METHODS:
            yield f"{file}:{node.lineno} {node.name}: {methods} methods, at most {CLASS_METHODS}"


def forbidden(file: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"globals", "eval", "exec"}:
                yield f"{file}:{node.lineno} calls {node.func.id}()"
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            yield f"{file}:{node.lineno} imports *"


def unannotated(file: str, tree: ast.Module) -> Iterator[str]:
    for node in functions(tree):
        if node.name.startswith("_"):
            continue
        a = node.args
        arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare = [x.arg for x in arguments if not x.annotation and x.arg not in {"self", "cls"}]
        if node.returns is None:
            bare.append("return")
        if bare:
            yield f"{file}:{node.lineno} {node.name}: no annotation for {', '.join(bare)}"


def parents(node: ast.ClassDef) -> list[str]:
    """The last name of every base: `Base`, `module.Base` and `Base[T]` are all Base."""
    bases = (b.value if isinstance(b, ast.Subscript) else b for b in node.bases)
    return [ast.unparse(b).rpartition(".")[2] for b in bases]


def deep_classes(trees: dict[str, ast.Module]) -> Iterator[str]:
    every = [(file, node) for file, tree in trees.items() for node in classes(tree)]
    ours = {node.name for _, node in every}
    have_parent = {node.name for _, node in every if ours.intersection(parents(node))}
    for file, node in every:
        own = ours.intersection(parents(node))
        if len(own) > 1:
            yield f"{file}:{node.lineno} {node.name}: in-repo parents {', '.join(sorted(own))}"
        if grand := own & have_parent:
            yield f"{file}:{node.lineno} {node.name}: {grand.pop()} has an in-repo parent itself"


def imports(file: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import of our own code as (line, dotted path, its last part perhaps a name in it)."""
    package = Path(file).relative_to("src").with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            path = [*base, *filter(None, [node.module])]
            yield from ((node.lineno, ".".join([*path, a.name])) for a in node.names)


def wrong_imports(file: str, tree: ast.Module) -> Iterator[str]:
    parts = Path(file).relative_to("src/vovnet").with_suffix("").parts
    unit = parts[0]
    if parts == ("__init__",):
        return  # the package itself offers what it likes
    if unit not in FLOORS:
        yield f"{file}: {unit} stands on no floor; add it to FLOORS and to the design"
        return
    for line, path in imports(file, tree):
        root, _, rest = path.partition(".")
        target = rest.partition(".")[0]
        if root != "vovnet" or target in {unit, "errors", "__version__"}:
            continue
        if target not in FLOORS:
            yield f"{file}:{line} imports {path}: not a module of a floor"
        elif FLOORS[target] >= FLOORS[unit]:
            yield (
                f"{file}:{line} imports {path}: "
                f"{unit} is on floor {FLOORS[unit]}, {target} on {FLOORS[target]}"
            )


def at_once(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing and not isinstance(child, Function | ast.Lambda):
            yield child
            yield from at_once(child)


def heavy_imports(file: str, tree: ast.Module) -> Iterator[str]:
    """What a light file imports at once that needs torch."""
    if in_torch_room(file.removeprefix("src/vovnet/")):
        return
    here = ast.Module([n for n in at_once(tree) if isinstance(n, ast.Import | ast.ImportFrom)], [])
    for line, path in imports(file, here):
        ours = path.removeprefix("vovnet.").replace(".", "/")
        if path.partition(".")[0] in TRAINING_PACKAGES or (ours != path and in_torch_room(ours)):
            yield f"{file}:{line} imports {path}, which needs torch; import it where it is used"


def in_torch_room(path: str) -> bool:
    """Whether a path below src/vovnet stands in a room of `TORCH`, or is a name of one."""
    return any(path == room or path.startswith((f"{room}/", f"{room}.")) for room in TORCH)


def report(offenders: list[str]) -> None:
    assert not offenders, "\n" + "\n".join(offenders)


def test_files_are_short():
    lines = {file: len((ROOT / file).read_text().splitlines()) for file in EVERYWHERE}
    report(
        [f"{file}: {n} lines, at most {FILE_LINES}" for file, n in lines.items() if n > FILE_LINES]
    )


@pytest.mark.parametrize("check", [too_long, forbidden])
def test_everywhere(check):
    report([line for file, tree in EVERYWHERE.items() for line in check(file, tree)])


@pytest.mark.parametrize("check", [unannotated, wrong_imports, heavy_imports])
def test_package(check):
    report([line for file, tree in PACKAGE.items() for line in check(file, tree)])


def test_class_chains_are_short():
    report(list(deep_classes(EVERYWHERE)))


def test_most_functions_are_short():
    lengths = [
        (length(node), f"{file}:{node.lineno} {node.name}: {length(node)} lines")
        for file, tree in PACKAGE.items()
        for node in functions(tree)
    ]
    longest = [line for _, line in sorted(lengths, reverse=True)[:10]]
    numbers = [n for n, _ in lengths]
    median, p95 = statistics.median(numbers), statistics.quantiles(numbers, n=20)[-1]
    assert median <= MEDIAN_FUNCTION_LINES, f"median {median}; longest: {longest}"
    assert p95 <= P95_FUNCTION_LINES, f"95th percentile {p95}; longest: {longest}"


@pytest.mark.parametrize(
    ("check", "source", "message"),
    [
        (too_long, "def f():\n" + "    x = 1\n" * 80, "f: 81 lines"),
        (too_long, "class C:\n" + "    x = 1\n" * 250, "C: 251 lines"),
        (too_long, "class C:\n" + "    def f(): ...\n" * 16, "16 methods"),
        (forbidden, "def f():\n    return globals()", "globals"),
        (forbidden, "eval('1')", "eval"),
        (forbidden, "exec('1')", "exec"),
        (forbidden, "from os import *", "imports \\*"),
        (unannotated, "def f(a, *b, c: int, **d): ...", "for a, b, d, return"),
        (wrong_imports, "from vovnet.train.loop import fit", "data is on floor 2, train on 4"),
        (wrong_imports, "from ..train import loop", "vovnet.train.loop"),
        (wrong_imports, "from .. import cli", "vovnet.cli"),
        (wrong_imports, "import vovnet.lab.count", "lab on 3"),
        (wrong_imports, "def f():\n    from vovnet import lab", "lab on 3"),
        (wrong_imports, "from vovnet import create_model", "not a module"),
        (wrong_imports, "import vovnet", "not a module"),
        (heavy_imports, "import torch.nn", "torch.nn, which needs torch"),
        (heavy_imports, "try:\n    from filelock import FileLock\nexcept E: ...", "FileLock"),
        (heavy_imports, "class C:\n    from vovnet.boxes.nms import nms", "vovnet.boxes.nms.nms"),
        (heavy_imports, "from .loader import Loader", "vovnet.data.loader.Loader"),
        (heavy_imports, "from vovnet.data import cache", "vovnet.data.cache"),
    ],
)
def test_the_checks_find_offenders(check, source, message):
    with pytest.raises(AssertionError, match=message):
        report(list(check("src/vovnet/data/x.py", ast.parse(source))))


def test_the_checks_let_good_code_pass():
    source = (
        "import os, torch\nfrom vovnet import __version__\nfrom vovnet.errors import DataError\n"
        "from vovnet.boxes.nms import nms\nfrom .record import Record\nfrom . import voc\n"
        "def f(self, a: int, *b: str) -> None: ...\ndef _g(a): ...\n"
    )
    for check in (too_long, forbidden, unannotated, wrong_imports):
        report(list(check("src/vovnet/data/x.py", ast.parse(source))))


def test_light_code_may_import_torch_where_it_uses_it():
    source = (
        "from typing import TYPE_CHECKING\nfrom vovnet.data.cached import x\n"
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch\n"
    )
    assert not list(heavy_imports("src/vovnet/data/x.py", ast.parse(source)))
    assert not list(heavy_imports("src/vovnet/data/cache.py", ast.parse("import torch")))
    assert not list(heavy_imports("src/vovnet/models/x.py", ast.parse("import torch")))


def test_floors_and_chains_find_offenders():
    tree = ast.parse("from vovnet.lab import count")
    assert "evaluate" in next(wrong_imports("src/vovnet/evaluate/x.py", tree))
    assert "no floor" in next(wrong_imports("src/vovnet/cellar/x.py", tree))
    deep = "class A: ...\nclass B(A): ...\nclass C(m.B[int]): ...\nclass D(A, B): ...\n"
    found = list(deep_classes({"x.py": ast.parse(deep)}))
    assert [line.partition(": ")[2] for line in found] == [
        "B has an in-repo parent itself",
        "in-repo parents A, B",
        "B has an in-repo parent itself",
    ]
