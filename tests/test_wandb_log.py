import json
import sys

import numpy as np
import pytest

from jaxcifar import examples, manifest, wandb_log
from jaxcifar.progress import Progress
from jaxcifar.spec import ConfigError

EVALUATION = {
    "per_class": [{"class": "cat", "accuracy": 50.0}, {"class": "dog", "accuracy": 100.0}],
    "confusion_matrix": [[1, 1], [0, 2]],
}


def progress_after(num_epochs):
    records = [{"epoch": i, "val_acc": 50.0 + i} for i in range(1, num_epochs + 1)]
    return Progress({}, [], "", records)


def epochs_of(workdir):
    from wandb_files import newest_history

    return [(row["epoch"], row["val_acc"]) for row in newest_history(workdir)]


def test_every_start_logs_the_whole_run_under_one_id(small_config, tmp_path, monkeypatch):
    """Offline, without a key or a prompt."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = wandb_log.start(tmp_path, small_config, progress_after(0))
    log.log({"epoch": 1, "val_acc": 51.0})
    log.log_histograms(1, {"gradients/conv1.kernel": np.linspace(-1, 1, 50)})
    log.finish(1)
    (file,) = log.offline_directory.glob("run-*.wandb")
    assert b"gradients/conv1.kernel" in file.read_bytes()
    assert epochs_of(tmp_path) == [(1, 51.0)]

    log = wandb_log.start(tmp_path, small_config, progress_after(2))
    log.log({"epoch": 3, "val_acc": 53.0})
    log.finish(0)
    assert epochs_of(tmp_path) == [(1, 51.0), (2, 52.0), (3, 53.0)]
    run_id = (tmp_path / "wandb" / "run-id").read_text().strip()
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}


def test_results_are_logged(small_config, tmp_path, capsys):
    pytest.importorskip("wandb")
    small_config.wandb.mode = "offline"
    best = tmp_path / "checkpoints" / "best" / "10"
    best.mkdir(parents=True)
    (best / "weights").write_text("x")
    manifest.write(best)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    mistake = {"images": pixels, "labels": np.int32([0]), "predictions": np.int32([1])}
    mistake |= {"probabilities": np.float32([0.9]), "pair": np.int32([examples.CONFIDENT])}
    examples.save(tmp_path / "examples.npz", mistake)
    log = wandb_log.start(tmp_path, small_config, progress_after(0))
    log.log_results(1, {"test_acc": 75.0}, EVALUATION)
    log.finish(0)
    assert "failed" not in capsys.readouterr().out
    (file,) = log.offline_directory.glob("run-*.wandb")
    for part in (b"test_acc", b"confusion_matrix", b"model-", b"weights", b"simple_cnn"):
        assert part in file.read_bytes()
    tables = {
        path.name.split("_")[0]: json.loads(path.read_text())["data"]
        for path in log.offline_directory.rglob("*.table.json")
    }
    assert tables["confusion"] == [
        *(["cat", "cat", 1], ["cat", "dog", 1]),
        *(["dog", "cat", 0], ["dog", "dog", 2]),
    ]
    assert tables["mistakes"][0][1:3] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("mode", "environment", "message"),
    [
        ("online", {}, "set WANDB_API_KEY"),
        ("auto", {"WANDB_MODE": "perhaps"}, "WANDB_MODE='perhaps' is not valid"),
        ("auto", {"WANDB_MODE": "online", "WANDB_API_KEY": "x"}, "WANDB_API_KEY"),
    ],
)
def test_invalid_settings_raise(small_config, tmp_path, monkeypatch, mode, environment, message):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    small_config.wandb.mode = mode
    with pytest.raises(ConfigError, match=message):
        wandb_log.start(tmp_path, small_config, progress_after(0))


@pytest.mark.parametrize("project", ["a/b", "x" * 300, "#?%:"])
def test_invalid_project_raises(small_config, tmp_path, project):
    pytest.importorskip("wandb")
    small_config.wandb.mode, small_config.wandb.project = "offline", project
    with pytest.raises(ConfigError, match="W&B cannot be started"):
        wandb_log.start(tmp_path, small_config, progress_after(0))


def test_missing_wandb(small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert wandb_log.start(tmp_path, small_config, progress_after(0)) is None
    assert "W&B is not installed" in capsys.readouterr().out
    small_config.wandb.mode = "offline"
    with pytest.raises(ConfigError, match="pip install wandb"):
        wandb_log.start(tmp_path, small_config, progress_after(0))


def test_run_continues_without_a_service_that_has_died(small_config, tmp_path, capsys):
    pytest.importorskip("wandb")
    small_config.wandb.mode = "offline"
    log = wandb_log.start(tmp_path, small_config, progress_after(0))

    class Dead:
        def log(self, *_, **__):
            raise ConnectionResetError("Connection lost")

    run, log._run = log._run, Dead()
    for epoch in (1, 2):
        log.log({"epoch": epoch, "val_acc": 51.0})
    run.finish()
    log.finish(0)
    message = "W&B has failed (Connection lost): the run continues without it"
    assert capsys.readouterr().out.count(message) == 1


@pytest.mark.parametrize("content", [b"", b"\xff", b"../../x", b"a" * 1000])
def test_damaged_run_id_is_replaced(tmp_path, content):
    (tmp_path / "run-id").write_bytes(content)
    run_id = wandb_log._run_id(tmp_path / "run-id")
    assert len(run_id) == 8
    assert wandb_log._run_id(tmp_path / "run-id") == run_id
