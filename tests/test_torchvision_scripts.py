"""A run of a narrow ResNet, from ported weights to an export, and the two scripts at its ends."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch_reference
from golden import make_resnet
from resnet_weights import WIDTH, abstract, assert_same, draw, port, ported_state_dict

from jaxcifar import checkpoint, data, parallel, train, validation, weights
from jaxcifar.models import functional
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("torchvision")


@pytest.fixture(scope="module")
def ported(directory):
    """Ported weights of the network below, with other classes."""
    return port(draw(abstract()), directory)


@pytest.fixture
def run(directory, ported, small_config):
    """A finished run of 60 steps, trained once, by the first test that needs it. It starts from
    ported weights because a ResNet's initialization takes longest to compile.
    """
    small_config.batch_size = 40  # 480 = 12 × 40
    small_config.eval.batch_size = 120
    small_config.num_epochs = 5
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.model.stem = "imagenet"
    small_config.model.pretrained = str(ported)
    small_config.optimizer.lr = 0.05
    train.train_and_evaluate(small_config, directory / "run")
    with Run.claim(small_config, directory / "run") as run:
        return run


def run_script(name, *flags, **environment):
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | environment,
    )


def test_narrow_resnet_learns_synthetic_images(run):
    losses = [record["train_loss"] for record in run.progress.records]
    assert losses == sorted(losses, reverse=True)
    # Chance is log(100); the last epoch was 0.79 below it when measured. Rounding on another
    # processor is amplified over 60 steps, but not to half of that.
    assert losses[-1] < math.log(100) - 0.3


def test_load_model_matches_the_summary(run):
    model, config = checkpoint.load_model(run.directory)
    assert config == run.config
    summary = json.loads((run.directory / "summary.json").read_text())
    graphdefs, params, stats = functional.split(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == summary["num_params"]
    test = data.load(config).test
    score = validation.Evaluation(graphdefs, config, parallel.setup(config))
    loss, accuracy = score(params, stats, test.images, test.labels)
    assert accuracy == pytest.approx(summary["test_acc"])
    # float32 rounding: the arrays are placed differently, so the program differs
    assert loss == pytest.approx(summary["test_loss"], rel=1e-5)


def test_load_model_by_step_and_invalid_steps_raise(run, tmp_path):
    last, _ = checkpoint.load_model(run.directory, "last")
    by_step, _ = checkpoint.load_model(run.directory, 60)
    assert_same(weights.to_torchvision(last), weights.to_torchvision(by_step))
    with pytest.raises(ConfigError, match=r"no checkpoint 7; .*steps \[.*60\]"):
        checkpoint.load_model(run.directory, 7)
    with pytest.raises(ConfigError, match="is not the work directory of a run"):
        checkpoint.load_model(tmp_path)


def test_export_and_port_are_bit_exact(run, tmp_path):
    output = tmp_path / "model.safetensors"
    done = run_script("export_torchvision", f"--workdir={run.directory}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    exported = safetensors.numpy.load_file(output)
    model, _ = checkpoint.load_model(run.directory)
    assert_same(exported, weights.to_torchvision(model))
    done = run_script("port_torchvision", f"--input={output}", f"--output={tmp_path / 'ported'}")
    assert done.returncode == 0, done.stderr
    assert "resnet18 of width 8, imagenet stem, linear head, 100 classes" in done.stdout
    assert_same(ported_state_dict(tmp_path / "ported"), exported)


@pytest.mark.torch
def test_torch_loads_an_export_strictly_with_the_same_logits(run):
    torch = pytest.importorskip("torch")
    torch_reference.torchvision()
    from jaxcifar.parity import networks, torch_networks

    theirs = networks.theirs(networks.Case("resnet18", width=WIDTH, num_classes=100))
    model, _ = checkpoint.load_model(run.directory)
    torch_networks.load(theirs, weights.to_torchvision(model))
    images = make_resnet.images("imagenet")
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    graphdefs, params, stats = functional.split(model)
    ours = jax.jit(lambda *arrays: functional.apply_eval(graphdefs, *arrays))(
        params, stats, images.transpose(0, 2, 3, 1)
    )
    # Float32 rounding of 18 layers, relative to the largest logit
    np.testing.assert_allclose(ours, expected, atol=1e-5 * abs(expected).max())


def test_offline_error_explains_the_manual_port(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = run_script("port_torchvision", f"--output={tmp_path / 'ported'}", **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "huggingface.co/timm/resnet18.tv_in1k" in line
    assert "--input=model.safetensors" in line


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("port_torchvision", [], "--output is missing"),
        ("port_torchvision", ["--output=x", "--input=nosuch.pth"], "no file 'nosuch.pth'"),
        ("port_torchvision", ["--outptu=x"], "outptu"),
        ("export_torchvision", ["--output=x.safetensors"], "--workdir is missing"),
        ("export_torchvision", ["--workdir=x", "--output=x.pth"], "*.safetensors"),
        (
            "export_torchvision",
            ["--workdir=nosuch", "--output=x.safetensors"],
            "is not the work directory of a run",
        ),
    ],
)
def test_invalid_commands_exit_with_2_and_one_line(script, flags, message):
    done = run_script(script, *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("script", ["port_torchvision", "export_torchvision"])
def test_help_exits_with_0(script):
    done = run_script(script, "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout
