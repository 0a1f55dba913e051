import json
import signal

import pytest

from jaxcifar import config as config_lib
from jaxcifar import data, smoke
from jaxcifar.spec import ConfigError


def test_smoke_run_trains_resumes_and_reports(small_config, tmp_path, capsys):
    small_config.num_epochs = 7
    small_config.eval.ood_dir = str(tmp_path / "nowhere")  # not scored
    workdir = tmp_path / "run"
    (tmp_path / "run-smoke").mkdir()
    (tmp_path / "run-smoke" / "old").touch()  # is replaced
    assert "interrupted, resumed, tested" in smoke.smoke(small_config, workdir)
    output = capsys.readouterr().out
    assert "resuming in epoch 1 after 2 steps" in output
    assert output.count("validation images (") == 1  # the warning is about the whole data set
    directory = tmp_path / "run-smoke"
    assert not workdir.exists()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["best_epoch"] == 1
    (record,) = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    assert record["step"] == 3
    written = json.loads((directory / "config.json").read_text())
    assert written["batch_size"] == small_config.batch_size
    assert not (directory / "old").exists()
    assert [path.name for path in tmp_path.glob("run*")] == ["run-smoke"]


def test_less_than_a_batch_is_interrupted_too(small_config, tmp_path):
    small_config.batch_size = 1000
    assert "interrupted, resumed, tested" in smoke.smoke(small_config, tmp_path / "run")


def test_a_signal_from_elsewhere_stops(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcifar.data.split", _terminated(data.split))
    with pytest.raises(SystemExit, match="143"):
        smoke.smoke(small_config, tmp_path / "run")


def _terminated(split):
    """Returns `data.split` that ends with SIGTERM's arrival, from its second call on: the run's."""
    calls = []

    def split_and_terminate(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            signal.raise_signal(signal.SIGTERM)
        return split(*arguments)

    return split_and_terminate


def test_several_processes_raise(tmp_path):
    config = config_lib.default()
    config.parallel.distributed = True
    with pytest.raises(ConfigError, match="--smoke runs in one process"):
        smoke.smoke(config, tmp_path / "run")
