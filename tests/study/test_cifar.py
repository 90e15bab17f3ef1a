"""The CIFAR study on a miniature of the data: two colours to tell apart."""

import pickle

import numpy as np
import pytest
import torch

from vovnet.cli import main
from vovnet.data.cifar import TEST_FILES, TRAIN_FILES, read_cifar10
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.models.weights import load_tensors
from vovnet.study.cifar import _stepper, accuracy, augmented, channel_statistics, train_cifar
from vovnet.train.recipe import recipe_from_dict

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cifar-10-batches-py")
    for name in (*TRAIN_FILES, *TEST_FILES):
        labels = [0, 1, 0, 1]
        data = RNG.integers(0, 100, (4, 3072)) + 150 * np.array(labels)[:, None]
        with open(path / name, "wb") as file:
            pickle.dump({b"data": data.astype(np.uint8), b"labels": labels}, file)
    return path


def recipe(folder, **changes):
    values = {
        "model": "osa_5x43",
        "data": [str(folder)],
        "epochs": 2,
        "batch": 4,
        "optimizer": "sgd",
        "nesterov": True,
        "lr": 0.02,
        "schedule": "multistep",
        "milestones": [0.5],
        "warmup": 0,
        "clip": 0,
        "ema_decay": 0,
        "weight_decay": 1e-4,
        "amp": "off",
    }
    return recipe_from_dict(values | changes)


def test_learns_and_goes_on_as_if_unbroken(folder, tmp_path):
    rows = []
    last = train_cifar(recipe(folder), tmp_path / "whole", on_row=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["lr"] for row in rows] == [0.02, 0.002]
    assert rows[1]["loss_class"] < rows[0]["loss_class"] < 3
    assert rows[0]["accuracy"] is None
    assert last["accuracy"] in (0, 0.25, 0.5, 0.75, 1)

    class StopError(Exception):
        pass

    def stop(row):
        raise StopError

    with pytest.raises(StopError):
        train_cifar(recipe(folder), tmp_path / "parts", on_row=stop)
    train_cifar(recipe(folder), tmp_path / "parts", resume=True)
    whole, parts = (
        load_tensors(tmp_path / run / "weights" / "last.safetensors")[0]
        for run in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["model: osa_5x43", "data: [nowhere]", "batch: 10", "optimizer: sgd", "lr: 0.02"]
    (tmp_path / "short.yaml").write_text("\n".join([*lines, "amp: 'off'", ""]))
    arguments = ["study", "cifar", "--config", "short.yaml"]
    assert main([*arguments, "--epochs", "1"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main([*arguments, "--epochs", "1", "--data", str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("osa_5x43")
    assert main(["study", "cifar"]) == 2
    assert "--config" in capsys.readouterr().err


def test_what_is_no_study(folder, tmp_path):
    with pytest.raises(UnknownNameError, match="osa_5x43"):
        train_cifar(recipe(folder, model="osa_5x44"), tmp_path)
    with pytest.raises(VovnetError, match="a length in epochs"):
        train_cifar(recipe(folder, epochs=None, minutes=1), tmp_path)


def test_the_accuracy_is_the_averaged_networks(folder):
    """Its bias is made to say 1 always, the network's own 0; three of four images are 1."""
    test = read_cifar10(folder, train=False)
    test = test._replace(labels=np.array([1, 1, 1, 0]))
    stepper = _stepper(recipe(folder), test, torch.device("cpu"))
    for network, label in ((stepper.learned.network, 0), (stepper.learned.average.network, 1)):
        *_, bias = (p for p in network.parameters() if p.shape == (10,))
        with torch.no_grad():
            bias[label] = 1e6
    assert accuracy(stepper, test) == 0.75


def test_statistics():
    images = RNG.integers(0, 256, (5, 4, 4, 3), np.uint8)
    mean, deviation = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(deviation, images.std((0, 1, 2)))


def test_augmentation_moves_and_mirrors():
    images = RNG.integers(0, 200, (300, 32, 32, 3), np.uint8)
    made = augmented(images, (250.0, 250.0, 250.0), 0.5, RNG)
    assert made.shape == images.shape
    seen = set()
    for before, after in zip(images, made, strict=True):
        inside = (after != 250).any(-1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        height, width = len(rows), len(columns)
        assert min(height, width) >= 28
        cut = after[inside].reshape(height, width, 3)
        found = [
            (y, x, mirrored)
            for mirrored, picture in enumerate((before, before[:, ::-1]))
            for y in {0, 32 - height}
            for x in {0, 32 - width}
            if (picture[y : y + height, x : x + width] == cut).all()
        ]
        assert len(found) == 1
        seen.add((rows[0], columns[0], height, width, found[0][2]))
    assert len(seen) > 100  # of 162 ways
