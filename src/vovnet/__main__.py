"""`vovnet` and `python -m vovnet`."""

import sys

from vovnet.interrupts import interrupted, listen


def main() -> int:
    """Run the command line; the exit code. Control-C is one word, however early it comes."""
    listen()
    try:
        from vovnet.cli import main as command

        return command()
    except BaseException:
        if not interrupted():
            raise
        print("vovnet: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
