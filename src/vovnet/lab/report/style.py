"""Colours and marks: a colour is a runtime, a shape a precision, in every figure alike.

The colours are Okabe and Ito's, which colour-blind readers tell apart, with Tol's olive and
wine for two more; all of them show on white and on the dark page.
"""

RUNTIME_COLOURS = {
    "eager": "#808080",
    "channels_last": "#56b4e9",
    "cuda_graph": "#882255",
    "compile": "#cc79a7",
    "aoti": "#999933",
    "onnxruntime": "#0072b2",
    "openvino": "#009e73",
    "ncnn": "#d55e00",
    "tensorrt": "#e69f00",
}
OTHER_COLOUR = "#b0a080"

# matplotlib's marker, and the same shape as an SVG path around 0,0 of about 10 pixels.
PRECISION_MARKS = {
    "fp32": ("o", "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z"),
    "bf16": ("s", "M-4.4,-4.4h8.8v8.8h-8.8z"),
    "fp16": ("^", "M0,-5.6L5.4,4H-5.4z"),
    "int8": ("D", "M0,-6L6,0L0,6L-6,0z"),
}
OTHER_MARK = ("X", "M-5,-3L-3,-5L0,-2L3,-5L5,-3L2,0L5,3L3,5L0,2L-3,5L-5,3L-2,0z")


def colour(runtime: str) -> str:
    """The colour of a runtime, as #rrggbb."""
    return RUNTIME_COLOURS.get(runtime, OTHER_COLOUR)


def mark(precision: str) -> tuple[str, str]:
    """The mark of a precision: for matplotlib, and as an SVG path."""
    return PRECISION_MARKS.get(precision, OTHER_MARK)
