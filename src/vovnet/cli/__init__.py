"""The command line: one function per verb that parses, calls one library function and prints.

The library is imported inside the verbs: `--help` and usage errors need not wait for it, and a
verb that needs torch says so where that is not installed.
"""

import io
import os
import sys
import traceback

import cyclopts
from cyclopts import App

from vovnet import __version__
from vovnet.cli._habits import refuse_habits
from vovnet.cli._print import PLAIN, note
from vovnet.cli.benching import bench
from vovnet.cli.describing import describe
from vovnet.cli.doctoring import doctor
from vovnet.cli.exporting import export
from vovnet.cli.networks import convert, count, env, fetch, models
from vovnet.cli.picking import pick
from vovnet.cli.predicting import predict
from vovnet.cli.reporting import report
from vovnet.cli.serving import serve
from vovnet.cli.studying import study
from vovnet.cli.training import train, val
from vovnet.cli.tuning import tune
from vovnet.errors import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_OK,
    EXIT_STOPPED,
    VovnetError,
    is_out_of_memory,
    missing_extra,
)
from vovnet.interrupts import interrupted

app = App(
    name="vovnet",
    help="Pick, train and ship the object detector that is cheapest to run on your hardware.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help_epilogue="Exit codes: 0 done, 2 bad input or usage, 3 done in part, 4 refused, "
    "130 stopped, 1 a bug.",
)
for _verb in (
    *(models, count, bench, doctor, train, tune, val, report, predict, serve, pick, export),
    *(describe, convert, fetch, env),
):
    app.command(_verb)
app.command(study)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of the input are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be text
            stream.reconfigure(errors=PLAIN)
    try:
        arguments = _with_stdin_named(sys.argv[1:] if arguments is None else arguments)
        refuse_habits(arguments, _options_of)
        result = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough; say nothing more, not at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return _fail("stopped", EXIT_STOPPED)
    except Exception as error:
        # What an interrupted import makes of it says nothing.
        return _fail("stopped", EXIT_STOPPED) if interrupted() else _explain(error)
    return result if isinstance(result, int) else EXIT_OK


def _with_stdin_named(arguments: list[str]) -> list[str]:
    """The arguments with "-" for standard input, which the parser takes for an option, as a file;
    behind --jsonl it is standard output."""
    return [
        "/dev/stdin" if word == "-" and before != "--jsonl" else word
        for before, word in zip(["", *arguments], arguments, strict=False)
    ]


def _options_of(verb: str) -> set[str]:
    """The options of a verb, without their dashes; none of what is no verb, or holds several."""
    if verb.startswith("-") or verb not in app or app[verb].default_command is None:
        return set()
    names = (
        name for argument in app[verb].assemble_argument_collection() for name in argument.names
    )
    return {name.removeprefix("--") for name in names}


def _explain(error: Exception) -> int:
    if isinstance(error, cyclopts.CycloptsError):
        return _fail(" ".join(str(error).split()) + " See vovnet --help.", EXIT_BAD_INPUT)
    if isinstance(error, VovnetError):
        return _fail(str(error), error.exit_code)
    if (missing := missing_extra(error)) is not None:  # a verb that needs torch
        return _fail(str(missing), missing.exit_code)
    if is_out_of_memory(error):
        return _fail("out of memory; lower --batch, --imgsz or --workers", EXIT_BAD_INPUT)
    traceback.print_exception(error)
    return _fail("this is a bug in vovnet; please report it with the lines above", EXIT_BUG)


def _fail(message: str, code: int) -> int:
    note(message)
    return code
