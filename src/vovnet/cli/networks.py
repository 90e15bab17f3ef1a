"""Verbs about networks as such: models, count, convert, fetch; and env, the machine they run on."""

from pathlib import Path
from typing import Annotated, Any, Literal

from vovnet.cli._options import Json, Many, Overwrite
from vovnet.cli._print import note, print_json, print_table, without
from vovnet.errors import EXIT_OK


def models(pattern: str = "*", *, as_json: Json = False) -> int:
    """List models, shipped and fetched weights whose names match a shell pattern such as "vov*".

    With parameters and multiply–accumulates at their input, in pixels; `vovnet count` tells more.
    """
    from vovnet.errors import UnknownNameError
    from vovnet.fetched import list_fetched
    from vovnet.models import list_detectors, list_models
    from vovnet.models.costs import listed_costs
    from vovnet.models.weights import fetched_rows, shipped_rows
    from vovnet.shipped import SHIPPED

    detectors, costs = set(list_detectors()), listed_costs()
    networks: list[dict[str, Any]] = [
        {"name": n, "kind": "detector" if n in detectors else "backbone", **costs[n]._asdict()}
        for n in list_models(pattern)
    ]
    weights = [
        {"name": row["name"], "kind": "weights", **costs[row["name"]]._asdict(), **row}
        for row in shipped_rows(pattern)
    ]
    fetched = [{"name": row["name"], "kind": "fetched", **row} for row in fetched_rows(pattern)]
    if not networks + weights + fetched:
        raise UnknownNameError("model", pattern, [*list_models(), *SHIPPED, *list_fetched()])
    if as_json:
        print_json(networks + weights + fetched)
        return EXIT_OK
    print_table(networks, fit=True)
    if weights:
        print("\n" * bool(networks) + "Shipped weights, counted and measured as predict runs them")
        print_table([without(row, "kind", "licence") for row in weights], fit=True)
    if fetched:
        print(
            "\n" * bool(networks + weights) + "Fetched backbones, for vovnet train --weights NAME"
        )
        print_table([without(r, "kind", "revision", "sha256") for r in fetched], fit=True)
    return EXIT_OK


def count(
    names: Annotated[list[str], Many],
    *,
    imgsz: int | None = None,
    num_classes: int | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    batch: int = 1,
    dtype: Literal["fp32", "bf16", "fp16", "int8"] = "fp32",
    layers: bool = False,
    as_json: Json = False,
) -> int:
    """Count parameters, multiply–accumulates, memory access and bytes of models, on paper.

    Parameters
    ----------
    names
        Models as `vovnet models` lists them, weights, timm:NAME, torchvision:NAME or an .onnx file.
    imgsz
        Input side in pixels (default: the model's own; 224 for backbones, 32 for CIFAR's).
    num_classes
        Classes, counted as the literature does: with the background for DSOD (21 for VOC).
    stem
        Backbones only: another stem than the model's own.
    batch
        Images per pass.
    dtype
        The numbers that bytes_moved is for.
    layers
        Also list every convolution: its memory access, the least there could be, the ratio.
    """
    from vovnet.lab import count_models

    rows = count_models(
        names,
        imgsz,
        num_classes=num_classes,
        stem=stem,
        batch=batch,
        dtype=dtype,
        layers=layers,
    )
    if as_json:
        print_json(rows)
    else:
        print_table(
            [without(row, "uncounted_ops", "layers", "fused", "bytes_by_operator") for row in rows]
        )
        for row in rows if layers else ():
            print(f"\n{row['model']}, its convolutions")
            print_table(row["layers"])
        print("macs: multiply–accumulates, flops = 2·macs; memory_access: elements, paper eq. 1")
        if any(row["fused"] for row in rows):
            print("weights are counted as predict runs them, with their batch norms folded")
    return EXIT_OK


def convert(
    source: Path,
    destination: Path,
    *,
    to: Literal["ours", "timm", "official"] = "ours",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Convert VoVNet weights between our names, timm's and the released checkpoints'.

    Parameters
    ----------
    source
        A .safetensors file, or a .pth (loaded without running code); a detector's is taken too.
    destination
        The .safetensors file to write, which is not there yet.
    to
        The names to write.
    overwrite
        Replace the destination, but never the source.
    """
    from vovnet.files import refuse_replacing
    from vovnet.models.convert import convert as convert_weights

    refuse_replacing("convert", [destination], [source], overwrite=overwrite)
    result = convert_weights(source, destination, to)
    if as_json:
        print_json({"path": str(destination), "to": to, **result._asdict()})
        return EXIT_OK
    settings = "".join(f", {key}={value}" for key, value in result.settings.items())
    print(f"{result.source} names, {result.tensors} tensors: {result.model}{settings}")
    print(destination)
    return EXIT_OK


def fetch(source: str, *, force: Overwrite = False, as_json: Json = False) -> int:
    """Download a VoVNet's pretrained weights from the Hugging Face hub, to train detectors from.

    They are kept in the cache folder and work offline from then on; no other verb downloads.

    Parameters
    ----------
    source
        A public repository with a model.safetensors, such as hf:timm/ese_vovnet19b_dw.ra_in1k.
        HF_ENDPOINT names another hub than huggingface.co.
    force
        Download it again although it is there.
    """
    from vovnet.models.fetch import fetch as fetch_weights

    result = fetch_weights(source, force=force)
    if not result.downloaded:
        note(f"{result.name}: is there already, nothing downloaded; --force fetches it again")
    if as_json:
        print_json(result._asdict())
        return EXIT_OK
    print(f"{result.source} at {result.revision}: {result.model}, sha256 {result.sha256}")
    print(result.path)
    note(
        f"next: vovnet train --data PATH --model refinedet320-{result.model} "
        f"--weights {result.name}"
    )
    return EXIT_OK


def env(*, as_json: Json = False) -> int:
    """Show the machine and the versions that results depend on."""
    from vovnet.environment import environment

    facts = environment()
    if as_json:
        print_json(facts)
    else:
        for section, values in facts.items():
            print(f"{section}: {values if not isinstance(values, dict) else ''}")
            for key, value in values.items() if isinstance(values, dict) else ():
                print(f"  {key}: {value}")
    return EXIT_OK
