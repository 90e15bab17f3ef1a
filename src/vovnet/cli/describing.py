"""The verb describe."""

import json
from pathlib import Path
from typing import Any

from vovnet.cli._options import Json, Overwrite
from vovnet.cli._print import note, print_json
from vovnet.errors import EXIT_OK


def describe(
    file: Path,
    *,
    out: Path | None = None,
    imgsz: int | None = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Propose how another project's detector is to be read, and tell what it cannot know.

    Looks at shapes, operators and metadata, and tries usual preparations on scikit-image's
    photographs where that is installed.

    Parameters
    ----------
    file
        The .onnx file, or the .xml of an OpenVINO IR.
    out
        JSON file for the description; beside the file, under its name, every verb finds it
        (default: print it).
    imgsz
        Input side in pixels, for a file that leaves it open.
    overwrite
        Replace an earlier --out.
    """
    from vovnet.detect.propose import propose
    from vovnet.files import refuse_replacing, write_atomically

    if out is not None:
        refuse_replacing("--out", [out], [file], overwrite=overwrite)
    proposal = propose(file, imgsz)
    text = json.dumps(proposal.description, indent=1, ensure_ascii=False)
    if out is not None:
        write_atomically(out, f"{text}\n".encode())
    if as_json:
        print_json(proposal.to_dict() | {"out": None if out is None else str(out)})
        return EXIT_OK
    print(text if out is None else out)
    for line in _remarks(proposal):
        note(line)
    return EXIT_OK


def _remarks(proposal: Any) -> list[str]:
    """What was found in the photographs, and what is to be checked."""
    found = [
        f"{name}: {', '.join(rows[:5]) or 'nothing'}{' ...' * (len(rows) > 5)}"
        for name, rows in proposal.found.items()
    ]
    return [*found, *(f"check {line}" for line in proposal.unknown)]
