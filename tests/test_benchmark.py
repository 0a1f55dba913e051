"""A smoke test of scripts/benchmark.py: jaxcifar alone, on a few images."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.slow
def test_reports_jaxcifar_alone(pytestconfig, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        train_images=rng.integers(0, 256, (256, 32, 32, 3), dtype=np.uint8),
        train_labels=rng.integers(0, 100, 256),
        test_images=rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8),
        test_labels=rng.integers(0, 100, 64),
    )
    command = [sys.executable, "scripts/benchmark.py", "--model=simple_cnn", "--peer=none"]
    command += ["--rounds=1", f"--data={tmp_path}/data.npz", f"--output={tmp_path}/out.json"]
    done = subprocess.run(
        command, cwd=pytestconfig.rootpath, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    figures = report["figures"]
    for title in ("training step, batch 128", "training step, batch 64", "evaluation"):
        assert figures[f"simple_cnn: {title}, images/s"]["jaxcifar"]["median"] > 0
    assert figures["simple_cnn: training step, batch 128, images/s"]["utilization"] < 1.5
    assert done.stdout.count("| simple_cnn: ") == 3


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--data=nosuch.npz", "--data='nosuch.npz' is not a readable .npz"),
        ("--data=LICENSE", "--data='LICENSE' is not a readable .npz"),
        ("--output=nosuch/x.json", "--output='nosuch/x.json' cannot be written"),
        ("--rounds=0", "--rounds=0 must be 1 or more"),
        ("--model=vgg", "invalid choice: 'vgg'"),
    ],
)
def test_invalid_arguments_are_reported_before_anything_is_measured(pytestconfig, flag, message):
    command = [sys.executable, "scripts/benchmark.py", "--peer=none", flag]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
