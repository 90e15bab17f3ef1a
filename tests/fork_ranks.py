"""A process that has imported torch once, and forks the ranks that `in_ranks` asks for.

A line of its input is `[file, name, arguments, environments, folder]`. For each environment a child
calls that function of that file; its result goes to `folder/RANK.json`, its words to
`folder/RANK.err`. Then their exit codes are printed, a JSON list.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import vovnet.train.run  # noqa: F401  # with torch and all that it needs


def work(file: str, name: str, arguments: list, result: Path) -> int:
    """In a child: call the function, and keep what it returns."""
    with result.with_suffix(".err").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    try:
        result.write_text(json.dumps(runpy.run_path(file)[name](*arguments)))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def serve() -> None:
    """Until the input ends."""
    for line in sys.stdin:
        file, name, arguments, environments, folder = json.loads(line)
        children = []
        for environment in environments:
            if (child := os.fork()) == 0:
                os.environ.update(environment)
                result = Path(folder) / f"{environment['RANK']}.json"
                os._exit(work(file, name, arguments, result))
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    serve()
