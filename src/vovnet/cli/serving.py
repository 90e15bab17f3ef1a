"""The verb serve."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vovnet.cli._options import Choice, Json, Many
from vovnet.cli._print import note
from vovnet.errors import VovnetError
from vovnet.serve import Limits

_HERE = {"127.0.0.1", "localhost", "::1"}


def serve(
    *,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    limits: Annotated[Limits, Parameter(name="*")] = Limits(),  # noqa: B008
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    cors: Annotated[list[str] | None, Many] = None,
    as_json: Json = False,
) -> None:
    """Serve a detector over HTTP: JSON, annotated pictures, the Open Inference Protocol, a page.

    SIGTERM and Control-C end it in order: all that was accepted is answered.

    Parameters
    ----------
    host
        Address to listen on; 0.0.0.0 is every one of this machine.
    port
        Port to listen on; 0 is a free one.
    api_key_file
        File of the keys that clients must send, one a line (default: anyone may ask).
    cors
        Origins whose pages may ask from browsers, such as https://example.org (default: none).
    """
    from vovnet.serve.run import need_packages
    from vovnet.serve.run import serve as run_server

    need_packages()
    _check_origins(cors or ())
    keys: tuple[bytes, ...] = ()
    if api_key_file is not None:
        from vovnet.serve.keys import read_keys

        keys = read_keys(api_key_file)
    elif host not in _HERE:
        note(f"--host {host}: anyone who reaches it may ask; --api-key-file asks for a key")
    detector = choice.resolved().load()
    tell = _tell_json if as_json else _tell
    run_server(detector, limits, host=host, port=port, keys=keys, origins=cors or (), started=tell)


def _check_origins(origins: Sequence[str]) -> None:
    """Browsers send scheme, host and port; anything else would match no page."""
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise VovnetError(f"--cors {origin}: is no origin, such as https://example.org")


def _tell(facts: dict[str, str]) -> None:
    note("{url} serves {model}, {runtime} {precision}".format(**facts))


def _tell_json(facts: dict[str, str]) -> None:
    print(json.dumps(facts), flush=True)  # whoever started it waits for this line
