"""The command line: one function per verb that parses, calls one library function and prints.

The library is imported inside the verbs: `--help` and usage errors need not wait for torch.
"""

import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count as count_from
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter

from vovnet import __version__
from vovnet.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_OK, EXIT_PARTIAL, VovnetError

DEFAULT_WEIGHTS = "vovdet_nano.voc"

# How torch's CPU and CUDA allocators, and a DataLoader whose worker was killed for it, say it.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|worker .* killed", re.I)

app = App(
    name="vovnet",
    help="Pick, train and ship the object detector that is cheapest to run on your hardware.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help_epilogue="Exit codes: 0 done, 2 bad input or usage, 3 done in part, 4 refused, 1 a bug.",
)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON on stdout.")]
Many = Parameter(consume_multiple=True)


@app.command
def models(pattern: str = "*", *, as_json: Json = False) -> int:
    """List models and shipped weights whose names match a shell pattern such as "vov*"."""
    from vovnet.models import list_detectors, list_models
    from vovnet.models.weights import SHIPPED, shipped_rows

    detectors = set(list_detectors())
    rows: list[dict[str, Any]] = [
        {"name": n, "kind": "detector" if n in detectors else "backbone"}
        for n in list_models(pattern)
    ]
    rows += [row | {"kind": "weights"} for row in shipped_rows(pattern)]
    if not rows:
        from vovnet.errors import UnknownNameError

        raise UnknownNameError("model", pattern, [*list_models(), *SHIPPED])
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows)
    return EXIT_OK


@app.command
def count(
    names: Annotated[list[str], Many],
    *,
    imgsz: int | None = None,
    num_classes: int | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    batch: int = 1,
    as_json: Json = False,
) -> int:
    """Count parameters, multiply–accumulates, memory access and bytes of models, on paper.

    Parameters
    ----------
    names
        Models, as `vovnet models` lists them.
    imgsz
        Input side in pixels (default: the model's own; 224 for backbones, 32 for CIFAR's).
    num_classes
        Classes, counted as the literature does: with the background for DSOD (21 for VOC).
    stem
        Backbones only: another stem than the model's own.
    batch
        Images per pass.
    """
    from vovnet.lab import count_models

    rows = count_models(names, imgsz, num_classes=num_classes, stem=stem, batch=batch)
    if as_json:
        _print_json(rows)
    else:
        _print_table([{k: v for k, v in row.items() if k != "uncounted_ops"} for row in rows])
        print("macs: multiply–accumulates, flops = 2·macs; memory_access: elements, paper eq. 1")
    return EXIT_OK


@app.command
def train(
    *,
    data: Annotated[list[str] | None, Many] = None,
    model: str | None = None,
    config: Path | None = None,
    val: str | None = None,
    val_every: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    imgsz: int | None = None,
    lr: float | None = None,
    workers: int | None = None,
    seed: int | None = None,
    amp: Literal["auto", "bf16", "off"] | None = None,
    device: str = "cpu",
    name: str | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Train a detector on a VOC, COCO or YOLO dataset.

    Parameters
    ----------
    data
        Datasets, each PATH or PATH@SPLIT. The first one's classes rule: of the others, objects of
        the same classes are taken (COCO's and VOC's words count as the same), the rest left out.
    model
        A detector, as `vovnet models` lists them (default: vovdet_nano).
    config
        A YAML recipe; the other options win over it.
    val
        Dataset to evaluate on at the end, PATH or PATH@SPLIT.
    val_every
        Evaluate every so many epochs too.
    imgsz
        Input side in pixels at the end of training (a recipe may start smaller).
    amp
        bf16 autocast; auto takes it where the processor computes in it.
    name
        Folder below runs/train; the next free number is added if it exists.
    resume
        A run's folder: go on with it. Only --epochs may be changed.
    """
    from vovnet.train.console import train_in_console
    from vovnet.train.recipe import read_recipe, recipe_from_dict
    from vovnet.train.run import load_run, with_overrides

    given = {
        "data": data, "model": model, "val": val, "val_every": val_every, "epochs": epochs,
        "batch": batch, "imgsz": imgsz, "lr": lr, "workers": workers, "seed": seed, "amp": amp,
    }  # fmt: skip
    given = {k: v for k, v in given.items() if v is not None}
    if resume is not None:
        if set(given) - {"epochs"} or config or name:
            raise VovnetError("--resume takes the run's own recipe; only --epochs may be changed")
        recipe, known = with_overrides(load_run(resume), epochs=epochs), resume
    else:
        values = {"model": "vovdet_nano"} | (read_recipe(config) if config else {}) | given
        recipe = recipe_from_dict(values)
        known = None
    with _run_folder("train", name or recipe.model, known) as folder:
        row = train_in_console(recipe, folder, resume=resume is not None, device=device)
    if as_json:
        _print_json({"folder": str(folder), **row})
    else:
        print(folder)
    return EXIT_OK


@app.command
def val(
    *,
    data: str,
    weights: str = DEFAULT_WEIGHTS,
    split: str | None = None,
    model: str | None = None,
    imgsz: int | None = None,
    batch: int = 8,
    device: str = "cpu",
    drop_unknown: bool = False,
    as_json: Json = False,
) -> int:
    """Measure a detector's accuracy: COCO AP, VOC 11-point and area AP.

    Parameters
    ----------
    data
        A VOC, COCO or YOLO dataset, PATH or PATH@SPLIT.
    weights
        A shipped name or a .safetensors file.
    split
        Which split (default: val, else test).
    model
        The model the weights must be for.
    drop_unknown
        Leave out objects of classes that the model does not know, instead of refusing them.
    """
    from vovnet.data.open import open_dataset, parse_source
    from vovnet.data.record import problem_lines
    from vovnet.evaluate.run import evaluate

    if batch < 1:
        raise VovnetError(f"--batch {batch}: must be at least 1")
    detector = _load(weights, model, imgsz, device)
    path, given_split = parse_source(data)
    dataset = open_dataset(
        path, split or given_split, detector.names, drop_unknown=drop_unknown, purpose="val"
    )
    for line in problem_lines(dataset):
        _note(line)
    with _progress("images", len(dataset)) as advance:
        metrics = evaluate(detector, dataset, batch=batch, on_images=advance)
    metrics |= {"weights": weights, "split": dataset.split, "problems": len(dataset.problems)}
    if as_json:
        _print_json(metrics)
    else:
        _print_metrics(metrics)
    return EXIT_OK


@app.command
def predict(
    sources: Annotated[list[str], Many],
    *,
    weights: str | None = None,
    model: str | None = None,
    conf: float = 0.25,
    iou: float = 0.6,
    imgsz: int | None = None,
    device: str = "cpu",
    out: Path | None = None,
    save: bool = True,
    as_json: Json = False,
) -> int:
    """Find objects in pictures; print them, and draw them into annotated copies.

    Parameters
    ----------
    sources
        Files, folders, globs, or skimage:NAME for a photograph inside scikit-image.
    weights
        A shipped name or a .safetensors file (default: vovdet_nano.voc).
    model
        A detector, to take its shipped weights.
    conf
        Least score shown.
    iou
        Overlap above which the weaker of two boxes of a class is dropped.
    imgsz
        Input side in pixels (default: the weights' own).
    out
        Folder for the annotated pictures (default: the next runs/predict/...).
    save
        Write annotated pictures.
    """
    from vovnet.models.weights import default_weights
    from vovnet.predict import expand_sources, predict_files

    _check_share("conf", conf)
    _check_share("iou", iou)
    paths = expand_sources(sources)
    chosen = weights or (default_weights(model) if model else DEFAULT_WEIGHTS)
    detector = _load(chosen, model, imgsz, device)
    if out is not None:
        _check_out(out, paths)
    rows: list[dict[str, Any]] = []
    try:
        with _run_folder("predict", "predict", out) if save else nullcontext() as folder:
            for row in predict_files(detector, paths, conf=conf, iou=iou, out=folder):
                rows.append(row.to_dict())
                if row.error is not None:
                    _note(row.error)
                elif not as_json:
                    _print_row(rows[-1])
    finally:  # also when stopped: what was found is not lost
        if as_json:
            _print_json(rows)
    failed = sum("error" in row for row in rows)
    if folder is not None and failed < len(rows) and not as_json:
        print(folder)
    if not failed:
        return EXIT_OK
    return EXIT_BAD_INPUT if failed == len(rows) else EXIT_PARTIAL


@app.command
def convert(
    source: Path,
    destination: Path,
    *,
    to: Literal["ours", "timm", "official"] = "ours",
    as_json: Json = False,
) -> int:
    """Convert VoVNet weights between our names, timm's and the released checkpoints'.

    Parameters
    ----------
    source
        A .safetensors file, or a .pth (loaded without running code); a detector's is taken too.
    destination
        The .safetensors file to write.
    to
        The names to write.
    """
    from vovnet.models.convert import convert as convert_weights

    result = convert_weights(source, destination, to)
    if as_json:
        _print_json({"path": str(destination), "to": to, **result._asdict()})
        return EXIT_OK
    settings = "".join(f", {key}={value}" for key, value in result.settings.items())
    print(f"{result.source} names, {result.tensors} tensors: {result.model}{settings}")
    print(destination)
    return EXIT_OK


@app.command
def env(*, as_json: Json = False) -> int:
    """Show the machine and the versions that results depend on."""
    from vovnet.lab import environment

    facts = environment()
    if as_json:
        _print_json(facts)
    else:
        for section, values in facts.items():
            print(f"{section}: {values if not isinstance(values, dict) else ''}")
            for key, value in values.items() if isinstance(values, dict) else ():
                print(f"  {key}: {value}")
    return EXIT_OK


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of the input are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _fail(" ".join(str(error).split()) + " See vovnet --help.", EXIT_BAD_INPUT)
    except VovnetError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:  # the reader has enough; say nothing more, not at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            return _fail("out of memory; lower --batch, --imgsz or --workers", EXIT_BAD_INPUT)
        traceback.print_exc()
        return _fail("this is a bug in vovnet; please report it with the lines above", EXIT_BUG)
    return result if isinstance(result, int) else EXIT_OK


def _fail(message: str, code: int) -> int:
    _note(message)
    return code


def _note(message: str) -> None:
    print("vovnet: " + "\\n".join(message.splitlines()), file=sys.stderr)


def _load(weights: str, model: str | None, imgsz: int | None, device: str) -> Any:
    from vovnet.models.weights import load_detector

    return load_detector(weights, model, imgsz=imgsz, device=device, fuse=True)


@contextmanager
def _run_folder(verb: str, name: str, given: Path | None = None) -> Iterator[Path]:
    """The given folder, or else runs/VERB/NAME, or the first NAME-2, NAME-3, ... that is free.

    A new one is made at once, so that two commands never share it, and taken away again if
    nothing was written into it.
    """
    if given is not None:
        yield given
        return
    if Path(name).name != name:
        raise VovnetError(f"--name {name}: give a plain name, not a path")
    folder = _make_free(Path("runs") / verb, name)
    try:
        yield folder
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _make_free(base: Path, name: str) -> Path:
    for number in count_from(1):
        folder = base / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise VovnetError(f"{folder}: cannot be made: {error.strerror}") from None
        return folder
    raise AssertionError("the numbers do not end")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal; yields the function that moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda images: bar.advance(task, images)


def _check_out(folder: Path, pictures: list[Path]) -> None:
    """Annotated copies go to a folder of their own: they must not replace what they show."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise VovnetError(f"--out {folder}: is no folder; give a folder")
    if os.path.realpath(folder) in {os.path.realpath(picture.parent) for picture in pictures}:
        raise VovnetError(f"--out {folder}: holds the pictures themselves; give another folder")


def _check_share(option: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise VovnetError(f"--{option} {value}: must lie in 0..1")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_row(row: dict[str, Any]) -> None:
    found = row["detections"]
    print(
        f"{row['path']}: {len(found)} found" + (f" -> {row['annotated']}" * bool(row["annotated"]))
    )
    for item in found:
        box = " ".join(f"{v:.0f}" for v in item["box"].values())
        print(f"  {item['label']:<12} {item['score']:.2f}  {box}")


def _print_metrics(metrics: dict[str, Any]) -> None:
    classes = metrics.pop("per_class")
    for key, value in metrics.items():
        print(f"{key:<12} {f'{value:.4f}' if isinstance(value, float) else value}")
    _print_table([{"class": name, **values} for name, values in classes.items()])


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Columns of plain text, as wide as they need to be; numbers to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        padded = (
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and abs(value) >= 1_000_000:
        return f"{value / 1e9:.3f} G" if abs(value) >= 1_000_000_000 else f"{value / 1e6:.2f} M"
    return str(value)
