import json
import sys

import numpy as np
import pytest

from jaxcifar import progress_bar
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError
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


def start_tracker(config, workdir):
    return Tracker(Run.claim(config, workdir), num_steps=30)


def test_plain_lines_and_jsonl(small_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "PLAIN_SECONDS", -1)
    with start_tracker(small_config, tmp_path) as tracker:
        tracker.update(1, 5, 2.0, 40.0, 900.0)
        tracker.log_epoch(RECORD)
        tracker.evaluation_callback("validating")(100, 120)
    lines = capsys.readouterr().out.splitlines()
    assert "epoch 1/3" in lines[0] and "900 images/s" in lines[0] and "5 of 30 steps" in lines[0]
    assert "val loss 1.2500 acc 60.00%" in lines[1]
    assert "validating: 100 of 120 images" in lines[2]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == RECORD


def test_wandb_offline_needs_no_key_and_no_prompt(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    small_config.wandb.histogram_every = 2
    with start_tracker(small_config, tmp_path) as tracker:
        tracker.log_epoch(RECORD)
        assert tracker.wants_histograms(2) and not tracker.wants_histograms(1)
        tracker.log_histograms(1, {"conv1.kernel": np.linspace(-1, 1, 50)})
        tracker.log_summary({"test_acc": 61.0})
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert b"gradients/conv1.kernel" in content
    assert b"val_acc" in content


def test_wandb_online_without_a_key_raises(small_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    small_config.wandb.mode = "online"
    with pytest.raises(ConfigError, match="WANDB_API_KEY"), start_tracker(small_config, tmp_path):
        pass


def test_wandb_missing(small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with start_tracker(small_config, tmp_path):
        pass
    assert "W&B is not installed" in capsys.readouterr().out
    small_config.wandb.mode = "offline"
    with (
        pytest.raises(ConfigError, match="pip install wandb"),
        start_tracker(small_config, tmp_path),
    ):
        pass
