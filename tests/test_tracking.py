import json

import numpy as np
import pytest

from jaxcifar import progress_bar
from jaxcifar.progress import Progress
from jaxcifar.run import Run
from jaxcifar.tracking import Tracker

RECORD = {
    "epoch": 1,
    "step": 10,
    "train_loss": 1.5,
    "train_acc": 50.0,
    "val_loss": 1.25,
    "val_acc": 60.0,
    "lr": 0.01,
    "seconds": 2.0,
    "images_per_second": 1000.0,
}


@pytest.fixture
def tracker(small_config, tmp_path):
    with Run.claim(small_config, tmp_path) as run:
        yield Tracker(run, Progress({}, [], ""), steps_per_epoch=10)


def test_plain_lines_and_jsonl(tracker, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "PLAIN_SECONDS", -1)
    with tracker:
        tracker.update(1, 5, 2.0, 40.0, 900.0)
        tracker.log_epoch(RECORD)
        tracker.evaluation_callback("validating")(100, 120)
        tracker.log_epoch(RECORD | {"skipped_steps": 2})
    lines = capsys.readouterr().out.splitlines()
    assert "epoch 1/3" in lines[0] and "900 images/s" in lines[0] and "5 of 30 steps" in lines[0]
    assert "val loss 1.2500 acc 60.00%" in lines[1]
    assert "validating: 100 of 120 images" in lines[2]
    assert lines[3].endswith("2 steps skipped")
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == RECORD


def test_trackers_report_the_same_records(tracker, small_config, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    small_config.wandb.histogram_every = 2
    small_config.tensorboard = True
    with tracker:
        tracker.log_epoch(RECORD)
        assert tracker.wants_histograms(2) and not tracker.wants_histograms(1)
        tracker.log_histograms(2, {"parameters/fc2.bias": np.arange(5.0)})
    (file,) = (tmp_path / "wandb").glob("offline-run-*")
    assert f"wandb sync {file}" in capsys.readouterr().out
    assert list((tmp_path / "tensorboard").iterdir())
