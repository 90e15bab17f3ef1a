"""Write the end-to-end ONNX files that ship beside the weights of everyday detectors.

python tools/ship_onnx.py [NAME ...]
"""

import argparse

from vovnet.models.weights import load_detector
from vovnet.runtimes.end_to_end import write_end_to_end
from vovnet.shipped import SHIPPED

EVERYDAY = ("vovdet_nano.voc", "vovdet_small.voc")


def main() -> None:
    """Write and print each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=EVERYDAY)
    for name in parser.parse_args().names:
        path = SHIPPED[name].with_suffix(".onnx")
        write_end_to_end(load_detector(name), path, batch=None, compact=True)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
