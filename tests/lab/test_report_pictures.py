"""What matplotlib is told to paint is what the layout says, shape by shape."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from PIL import Image

from vovnet.charts.shapes import Box, Mark, Stroke, Text
from vovnet.lab.count import LayerCount
from vovnet.lab.report import write_figures
from vovnet.lab.report.figures import layer_bars, scatters
from vovnet.lab.report.layout import lay_out
from vovnet.lab.report.style import RUNTIME_COLOURS, colour

HEAD = 34  # pixels of the title above the drawing
LAYERS = {"a": [LayerCount(f"net.stem.{i}", "conv", 4e6, 3e5, 2e5, 1.5) for i in range(3)]}


@pytest.fixture
def painted(bench_row, tmp_path, monkeypatch) -> list[tuple[Any, Any, Path]]:
    """Every figure: its layout, matplotlib's axes and the file."""
    rows = [
        bench_row("a", 50.0, repeats=(1.0, 1.5, 2.0)),
        bench_row("a", 30.0, runtime="ncnn", precision="bf16"),
        bench_row("b", 20.0, scale=0.5, runtime="openvino", precision="int8"),
    ]
    axes, save = [], Figure.savefig

    def savefig(canvas: Figure, *args: Any, **options: Any) -> None:
        axes.extend(canvas.axes)
        save(canvas, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    paths = write_figures(tmp_path, rows, layers=LAYERS)
    drawings = [lay_out(figure) for figure in [*scatters(rows), *layer_bars(LAYERS)]]
    assert len(drawings) > 4
    return list(zip(drawings, axes, paths, strict=True))


def test_a_picture_has_two_pixels_for_each_of_the_layout(painted):
    for drawing, axes, path in painted:
        assert axes.get_xlim() == (0, drawing.width)
        assert axes.get_ylim() == (drawing.height, -HEAD)
        assert axes.get_position().bounds == (0, 0, 1, 1)
        assert not axes.axison
        with Image.open(path) as image:
            wanted = (2 * drawing.width, 2 * (drawing.height + HEAD))
            assert image.size == pytest.approx(wanted, abs=1)
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_texts_stand_where_the_layout_has_them(painted):
    sides = {"start": "left", "middle": "center", "end": "right"}
    for drawing, axes, _ in painted:
        title, *texts = axes.texts
        assert (title.get_text(), title.get_position()) == (drawing.title, (14, -12))
        assert (title.get_size(), title.get_weight()) == (11, "bold")
        shapes = [shape for shape in drawing.shapes if isinstance(shape, Text)]
        for text, shape in zip(texts, shapes, strict=True):
            assert (text.get_text(), text.get_position()) == (shape.text, (shape.x, shape.y))
            assert text.get_ha() == sides[shape.anchor]
            assert text.get_va() == "baseline"
            assert text.get_rotation() == (90 if shape.turned else 0)
            assert text.get_size() == pytest.approx(11.5 * 0.75)  # pixels in points
            assert (text.get_bbox_patch() is not None) == (shape.kind == "roof")
            assert not text.get_parse_math()
            assert same_color(text.get_color(), "#5c6570" if shape.kind == "tick" else "#1b1f24")


def test_lines_bars_and_marks_are_painted_in_their_order(painted):
    for drawing, axes, _ in painted:
        lines, bars = iter(axes.lines), iter(axes.patches)
        for layer, shape in enumerate(drawing.shapes, 1):
            if isinstance(shape, Stroke):
                line = next(lines)
                assert list(zip(*line.get_data(), strict=True)) == list(shape.points)
                assert line.get_zorder() == layer
            elif isinstance(shape, Box):
                bar = next(bars)
                place = (bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height())
                assert place == pytest.approx((shape.x, shape.y, shape.width, shape.height))
                assert bar.get_zorder() == layer
            elif isinstance(shape, Mark):
                if shape.low is not None:
                    whisker = next(lines)
                    assert list(whisker.get_xdata()) == [shape.low, shape.high]
                    assert list(whisker.get_ydata()) == [shape.y, shape.y]
                mark = next(lines)
                assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([shape.x], [shape.y])
                assert mark.get_markersize() == pytest.approx(10 * 0.75)
                shade = shape.colour
                assert same_color(mark.get_markeredgecolor(), shade)
                assert same_color(mark.get_markerfacecolor(), shade if shape.solid else "none")
                assert mark.get_zorder() == layer
        assert next(lines, None) is next(bars, None) is None


def test_runtimes_have_colours_of_their_own():
    shades = [colour(runtime) for runtime in (*RUNTIME_COLOURS, "another")]
    assert len({shade.lower() for shade in shades}) == len(shades)
    assert colour("one") == colour("another")
