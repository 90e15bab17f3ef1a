"""Do the tests notice when the code is wrong? Mutants of the package, one small fault in each.

    python tools/mutate.py trace build/mutants tests/losses tests/models    # which test runs what
    python tools/mutate.py run build/mutants losses models --count 300      # and which mutants live

A mutant is tried on the tests that run its line, nearest first, until one fails: "killed",
or "survived" if none does. A fault outside of functions is tried on all tests that run the file.
Tests run in a fork of one process that has imported torch already, on a package of links in which
one file is the mutant. The sample is drawn by `--seed`, evenly over the files, and the results, one
JSON object a line in results.jsonl, are added to: a run that was stopped goes on.

Not mutated, since no behaviour hangs on it: f-strings and what stands in `raise` and `assert` (the
wording of messages), `strict=` of zip, annotations, decorators, and strings.
"""

import argparse
import ast
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vovnet"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr)
_SWAPS = {
    "Lt": "LtE Gt", "LtE": "Lt Gt", "Gt": "GtE Lt", "GtE": "Gt Lt", "Eq": "NotEq", "NotEq": "Eq",
    "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In", "And": "Or", "Or": "And",
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "FloorDiv": "Div", "Mod": "Mult",
    "Pow": "Mult", "BitAnd": "BitOr", "BitOr": "BitAnd", "LShift": "RShift", "RShift": "LShift",
}  # fmt: skip
_PAIRS = ("min max", "amin amax", "minimum maximum", "any all", "argmin argmax", "floor ceil")
_NAMES = {one: other for pair in map(str.split, _PAIRS) for one, other in (pair, pair[::-1])}


class Mutant(NamedTuple):
    """A fault: the `number`th of its file, where it is, what is there and what comes instead, and
    the lines whose tests count (none: those of the whole file)."""

    file: str
    number: int
    place: tuple[int, int]
    kind: str
    before: str
    after: str
    lines: tuple[int, ...]

    @property
    def key(self) -> str:
        """What tells it from others."""
        line, column = self.place
        return f"{self.file}:{line}:{column} {self.kind}: {self.before} -> {self.after}"


def _swapped(operator: ast.AST) -> Iterator[Any]:
    return (getattr(ast, name)() for name in _SWAPS.get(type(operator).__name__, "").split())


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What could stand in a node's place, with the name of such a fault."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in _swapped(operator):
                yield "comparison", ast.Compare(node.left, [other], node.comparators)
        case ast.BinOp():
            for other in _swapped(node.op):
                yield "arithmetic", ast.BinOp(node.left, other, node.right)
        case ast.BoolOp():
            yield "boolean", ast.BoolOp(next(_swapped(node.op)), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "negation", node.operand
        case ast.Constant():
            yield from (("constant", ast.Constant(value)) for value in _other(node.value))
        case ast.Name(id=name) if name in _NAMES:
            yield "name", ast.Name(_NAMES[name], node.ctx)
        case ast.Attribute(attr=name) if name in _NAMES:
            yield "name", ast.Attribute(node.value, _NAMES[name], node.ctx)
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield "return", ast.Return(ast.Constant(None))
        case ast.AugAssign() | ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute()]):
            yield "statement", ast.Pass()


def _other(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield value * 2 or 1.0


def _places(node: ast.AST, lines: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every part of the code that may change, by its parent, field and place in it, and the lines
    of the statement within a function that it belongs to."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, _SKIPPED):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            inside = lines
            if isinstance(child, ast.stmt) and (lines or isinstance(node, _FUNCTIONS)):
                body = getattr(child, "body", None)  # of a compound statement only the head
                last = body[0].lineno - 1 if body else child.end_lineno
                inside = tuple(range(child.lineno, max(child.lineno, last or 0) + 1))
            yield node, field, index if isinstance(value, list) else None, inside
            yield from _places(child, inside)


def _faults(tree: ast.Module) -> Iterator[tuple[str, Any, Any, tuple[int, ...]]]:
    """Every fault in turn, as long as it is asked for in the tree: its kind, the node, what stands
    in the tree instead, and the lines."""
    for parent, field, index, lines in list(_places(tree)):
        held = getattr(parent, field)
        node = held if index is None else held[index]
        for kind, other in _replacements(node):
            _put(parent, field, index, ast.copy_location(other, node))
            yield kind, node, other, lines
            _put(parent, field, index, node)


def mutants(path: Path) -> list[Mutant]:
    """All of a file."""
    file, made = path.relative_to(ROOT).as_posix(), []
    for number, (kind, node, other, lines) in enumerate(_faults(ast.parse(path.read_text()))):
        texts = (re.sub(r"\s+", " ", ast.unparse(n))[:70] for n in (node, other))
        made.append(Mutant(file, number, (node.lineno, node.col_offset), kind, *texts, lines))
    return made


def mutated(mutant: Mutant) -> str:
    """The text of its file with the fault."""
    tree = ast.parse((ROOT / mutant.file).read_text())
    next(itertools.islice(_faults(tree), mutant.number, None))
    return ast.unparse(tree)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


class Tracer:
    """A pytest plugin that writes which lines of the package each test runs, and how long it takes:
    {test: [seconds, {file: lines}]}. A test that fails without a mutant is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, Any] = {}
        self.seen: dict[str, set[int]] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended."""
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_runtest_logstart(self) -> None:
        """A test begins."""
        self.seen, self.began = {}, time.process_time()
        sys.settrace(self._call)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """It ends."""
        sys.settrace(None)
        lines = {Path(f).relative_to(ROOT).as_posix(): sorted(x) for f, x in self.seen.items()}
        self.tests[nodeid] = [round(time.process_time() - self.began, 3), lines]

    def pytest_sessionfinish(self) -> None:
        """All have ended."""
        for test in self.failed:
            self.tests.pop(test, None)
        self.path.write_text(json.dumps(self.tests))

    def _call(self, frame: FrameType, event: str, arg: object) -> Callable | None:
        if not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return None
        lines = self.seen.setdefault(frame.f_code.co_filename, set())

        def line(frame: FrameType, event: str, arg: object) -> Callable:
            lines.add(frame.f_lineno)
            return line

        return line


def _pytest(arguments: Sequence[str], log: Path, plugins: Sequence[object] = ()) -> int:
    """What a fork does: run tests, their output in a file, and end with pytest's exit status."""
    import pytest

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    quiet = ["-x", "-q", "--no-header", "--tb=no", "-rf", "-p", "no:cacheprovider"]
    return int(pytest.main([*quiet, *arguments], plugins=list(plugins)))


def _try(mutant: Mutant, tests: Sequence[str], log: Path) -> int:
    """`_pytest` on a package one module of which is the mutant, for its child processes too."""
    if not tests:
        return 0
    here, there = ROOT, log.with_suffix("")  # a package of links, but for what leads to the mutant
    for part in Path(mutant.file).parts:
        there.mkdir()
        for child in here.iterdir() if here != ROOT else ():
            if child.name not in (part, "__pycache__"):
                (there / child.name).symlink_to(child)
        here, there = here / part, there / part
    there.write_text(mutated(mutant))
    path = str(log.with_suffix("") / "src")
    sys.path[0], os.environ["PYTHONPATH"] = path, path
    return _pytest(tests, log)


def _fork(work: Callable[[], int]) -> int:
    process = os.fork()
    if process == 0:
        os.setsid()  # so that a mutant's own processes end with it
        status = 70
        try:
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def _each(jobs: Iterator[tuple[Any, Callable[[], int], float]], count: int) -> Iterator[tuple]:
    """Run jobs (label, work, seconds) in forks, `count` at a time: (label, exit status, seconds);
    the status is None if the time was over."""
    running: dict[int, tuple[Any, float, float]] = {}
    while True:
        while len(running) < count and (job := next(jobs, None)):
            label, work, limit = job
            running[_fork(work)] = (label, time.monotonic(), limit)
        if not running:
            return
        for process, (label, began, limit) in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            took = time.monotonic() - began
            if not done and took > limit:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if done or took > limit:
                del running[process]
                yield label, os.waitstatus_to_exitcode(status) if done else None, took
        time.sleep(0.05)


def trace(folder: Path, paths: Sequence[str], jobs: int) -> None:
    """Run the tests of every path and write which lines they run."""
    work = (
        (path, functools.partial(_pytest, [path, "--maxfail=999"], log, [Tracer(out)]), 1e5)
        for path in paths
        for out in [folder / f"trace-{path.replace('/', '-')}.json"]
        for log in [out.with_suffix(".log")]
    )
    for path, status, seconds in _each(work, jobs):
        print(f"{path}: exit {status}, {seconds:.0f} s", flush=True)


def _tests(mutant: Mutant, traces: dict[str, Any], budget: float) -> list[str]:
    """The tests that run a mutant's lines, for so many seconds: those of the file of the same name
    first, and of them the quickest. If none is seen to, all of that file: they may have processes
    of their own."""
    own = mutant.file.replace("src/vovnet", "tests").replace(Path(mutant.file).name, "test_")
    own += Path(mutant.file).name.lstrip("_")
    found = []
    for test, (seconds, files) in traces.items():
        lines = files.get(mutant.file, ())
        if lines and (not mutant.lines or any(n in lines for n in mutant.lines)):
            found.append((not test.startswith(own), seconds, test))
    unseen = ((False, seconds, test) for test, (seconds, _) in traces.items() if own in test)
    chosen, spent = [], 0.0
    for _, seconds, test in sorted(found or unseen):
        spent += seconds
        if chosen and spent > budget:
            break
        chosen.append(test)
    return chosen


def sample(packages: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """`count` mutants, as evenly over the files as they have any; a file or a folder a package."""
    paths = [PACKAGE / package for package in packages]
    files = sorted(f for p in paths for f in ([p] if p.is_file() else p.rglob("*.py")))
    draw, piles = random.Random(seed), []
    for file in files:
        piles.append(mutants(file))
        draw.shuffle(piles[-1])
    chosen: list[Mutant] = []
    while len(chosen) < count and any(piles):
        for pile in piles:
            if pile and len(chosen) < count:
                chosen.append(pile.pop())
    return chosen


def run(folder: Path, options: argparse.Namespace) -> None:
    """Try a sample of mutants and add what becomes of each to results.jsonl."""
    results = folder / "results.jsonl"
    traces: dict[str, Any] = {}
    for path in sorted(folder.glob("trace-*.json")):
        traces |= json.loads(path.read_text())
    rows = [json.loads(x) for x in results.read_text().splitlines()] if results.exists() else []
    if options.again:
        rows = [row for row in rows if row["outcome"] == "killed"]
        results.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    known = {row["key"] for row in rows}
    todo = [m for m in sample(options.paths, options.count, options.seed) if m.key not in known]
    logs = (folder / f"{i}.log" for i in range(len(todo)))
    work = (
        ((m, tests, log), functools.partial(_try, m, tests, log), 60 + 10 * options.budget)
        for m, log in zip(todo, logs, strict=True)
        for tests in [_tests(m, traces, options.budget)]
    )
    for (mutant, tests, log), status, seconds in _each(work, options.jobs):
        if status not in (0, 1, 2, None) and status > 0:  # 2: a module that cannot be imported
            raise SystemExit(f"pytest ended with {status}: see {log}; trace the tests anew")
        outcome = "survived" if status == 0 else "killed"
        said = log.read_text(errors="replace") if log.exists() else ""
        by = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
        row = {"key": mutant.key, "outcome": outcome, "tests": len(tests), "seconds": seconds}
        row["by"] = "time" if status is None else by and by[1]
        log.unlink(missing_ok=True)
        shutil.rmtree(log.with_suffix(""), ignore_errors=True)
        with results.open("a") as file:
            file.write(f"{json.dumps(row)}\n")
        print(f"{outcome} ({row['by'] or len(tests)}) {mutant.key}", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["trace", "run"])
    parser.add_argument("folder", type=Path, help="for traces and results")
    parser.add_argument("paths", nargs="+", help="trace: tests; run: parts of the package")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=30, help="seconds of tests a mutant")
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))  # this tree, whatever is installed
    import hotcoco  # noqa: F401  # what takes long to import, once
    import torchvision  # noqa: F401

    if options.verb == "trace":
        trace(options.folder, options.paths, options.jobs)
    else:
        run(options.folder, options)


if __name__ == "__main__":
    main()
