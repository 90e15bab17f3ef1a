import pytest

from vovnet.review.results import history, out_of_patience
from vovnet.train.sinks import CsvSink, TensorBoardSink


def test_rows_of_epochs_done_again_are_replaced(tmp_path):
    path = tmp_path / "results.csv"
    sink = CsvSink(path, keep=False)
    for epoch in (1, 2, 3):
        sink.write({"epoch": epoch, "map_50": epoch / 10})
    again = CsvSink(path, keep=True)
    again.write({"epoch": 3, "map_50": 0.9})
    assert path.read_text() == "epoch,map_50\n1,0.1\n2,0.2\n3,0.9\n"
    assert again.rows[0] == {"epoch": 1, "map_50": 0.1}  # numbers again
    assert history(again.rows, "map_50") == [0.1, 0.2, 0.9]
    assert CsvSink(path, keep=False).rows == []


@pytest.mark.parametrize(
    ("scores", "patience", "out"),
    [
        ([0.1, 0.2, 0.2, 0.1], 0, False),
        ([0.1, 0.2, 0.2, 0.1], 2, True),
        ([0.1, 0.2, 0.2, 0.1], 3, False),
        ([0.5, 0.4], 2, False),
        ([], 1, False),
    ],
)
def test_patience_ends_when_nothing_better_comes(scores, patience, out):
    rows = [{"map_50": score} for score in scores]
    rows.insert(1, {"map_50": None})  # an epoch without evaluation
    assert out_of_patience(rows, "map_50", patience) is out


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path)
    for epoch in (1, 2):
        sink.write({"epoch": epoch, "loss_box": 0.5 / epoch, "map_50": None})
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["loss_box"]
    assert [(e.step, e.value) for e in events.Scalars("loss_box")] == [(1, 0.5), (2, 0.25)]
