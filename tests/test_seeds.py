import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxcifar import checkpoint, data, program, seeds, train
from jaxcifar.config import from_dict
from jaxcifar.spec import ConfigError

TIMES = ("seconds", "images_per_second", "wall_seconds")


def results(workdir):
    """The run's records and scores, but for times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records], evaluation


@pytest.fixture
def seeds_config(small_config):
    small_config.num_epochs = 1
    small_config.num_seeds = 2
    return small_config


def test_each_seed_is_the_run_with_that_seed_alone(seeds_config, tmp_path, monkeypatch):
    """Bit for bit, though the images are read and the programs compiled once."""
    calls = []
    read = data.read
    monkeypatch.setattr(data, "read", lambda config: calls.append(config.seed) or read(config))
    summary = train.train_and_evaluate(seeds_config, tmp_path / "run")
    assert calls == [42]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    seeds_config.num_seeds = 1
    for seed in (42, 43):
        seeds_config.seed = seed
        alone = tmp_path / f"alone-{seed}"
        train.train_and_evaluate(seeds_config, alone)
        ours = tmp_path / "run" / f"seed-{seed}"
        assert results(ours) == results(alone)
        config = from_dict(json.loads((ours / "config.json").read_text()))
        assert (config.seed, config.num_seeds) == (seed, 1)
        models = [checkpoint.load_model(workdir)[0] for workdir in (ours, alone)]
        np.testing.assert_array_equal(*(model.fc2.kernel[...] for model in models))


def test_stopped_seeds_resume_and_may_grow(seeds_config, tmp_path, monkeypatch, capsys):
    calls = []
    train_epoch = program.Program.train_epoch

    def stopping_epoch(self, *arguments):
        for call in train_epoch(self, *arguments):
            calls.append(self.config.seed)
            if len(calls) == 13:  # of 10 a seed
                os.kill(os.getpid(), signal.SIGTERM)
            yield call

    monkeypatch.setattr(program.Program, "train_epoch", stopping_epoch)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(seeds_config, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    train.train_and_evaluate(seeds_config, tmp_path)
    assert calls == [42] * 10 + [43] * 10
    assert "seed 42 (1 of 2) is already finished" in capsys.readouterr().out
    seeds_config.num_seeds = 3
    summary = train.train_and_evaluate(seeds_config, tmp_path)
    assert calls[20:] == [44] * 10
    assert summary["seeds"] == [42, 43, 44]


def test_summary_has_means_and_spreads():
    runs = {
        seed: {
            "best_epoch": 2,
            "best_val_acc": 50.0,
            "test_acc": accuracy,
            "test_loss": 1.0,
            "images_per_second": 100.0,
            "wall_seconds": 10.0,
            "worst_classes": {"a": 1.0},
            "num_params": 7,
            "device": "1 × cpu",
        }
        for seed, accuracy in ((1, 60.0), (2, 62.0), (3, 64.0))
    }
    summary = seeds.summarize(runs)
    assert summary["test_acc"] == 62 and summary["test_acc_std"] == 2
    assert summary["test_acc_ci95"] == pytest.approx(4.302653 * 2 / 3**0.5)  # t of 2 degrees
    assert summary["wall_seconds"] == 30 and summary["seeds"] == [1, 2, 3]
    assert summary["num_params"] == 7 and "worst_classes" not in summary
    assert "ood_acc" not in summary
    assert "62.00% ± 2.00" in seeds.describe(summary)


def test_directory_of_seeds_is_told_from_that_of_one_run(
    seeds_config, tmp_path, call_main, reports
):
    flags = [f"--config.{key}" for key in ("num_epochs=1", "batch_size=48", "model.width=4")]
    flags += ["--config.data.name=synthetic100", "--config.data.synthetic_size=600"]
    command = ["--config=configs/part1.py", f"--workdir={tmp_path}", *flags]
    assert call_main(*command, "--config.num_seeds=2")[0] == 0
    code, out, _ = call_main(*command, "--config.num_seeds=2")
    assert code == 0 and out.count("is already finished") == 2 and "over 2 seeds" in out
    code, _, err = call_main(*command)
    assert code == 2 and "holds the runs of 2 seeds" in err and err.count("\n") == 1
    with pytest.raises(ConfigError, match=r"name one, such as .*seed-42"):
        checkpoint.load_model(tmp_path)
    (tmp_path / "report.html").unlink()
    # in its own process: the commands' flags are declared once in one
    subprocess.run([sys.executable, "-m", "jaxcifar.report", tmp_path], check=True)
    assert "(2 seeds)" in (tmp_path / "report.html").read_text()
    one = tmp_path / "seed-42"
    code, _, err = call_main(*command, f"--workdir={one}", "--config.num_seeds=2")
    assert code == 2 and "num_seeds" in err
