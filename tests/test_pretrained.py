"""Files, downloads and ported directories; and a run from ported weights to an export, of a ResNet
narrow enough to compile in seconds.
"""

import hashlib
import json
import math
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch_reference
from flax import nnx
from golden import make_resnet
from resnet_weights import WIDTH, abstract, assert_same, draw

from jaxcifar import checkpoint, data, evaluate, models, parallel, pretrained, train, weights
from jaxcifar.checkpoint import Checkpoints
from jaxcifar.models import functional
from jaxcifar.program import Program
from jaxcifar.progress import Progress
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def drawn():
    """The state dict of a narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return draw(abstract())


@pytest.fixture
def file(drawn, tmp_path):
    path = tmp_path / "drawn.safetensors"
    pretrained.write(drawn, path)
    return path


@pytest.fixture(scope="module")
def ported(drawn, tmp_path_factory):
    """The directory of its port."""
    directory = tmp_path_factory.mktemp("pretrained")
    pretrained.write(drawn, directory / "drawn.safetensors")
    pretrained.port(directory / "drawn.safetensors", directory / "ported")
    return directory / "ported"


@pytest.fixture
def resnet_config(small_config, ported):
    """A run that starts from the ported weights, whose classes are others."""
    small_config.data.synthetic_size = 500
    small_config.batch_size = 40  # 400 = 10 × 40
    small_config.eval.batch_size = 100
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.model.stem = "imagenet"
    small_config.model.pretrained = str(ported)
    small_config.optimizer.lr = 0.05
    small_config.num_epochs = 5
    return small_config


def run_script(name, *flags, **environment):
    root = pathlib.Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=root,
        env=os.environ | environment,
    )


# --- ported directories ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"num_classes": 1000, "stem": "imagenet", "head": "linear"}),
        (
            "resnet50",
            {"num_classes": 7, "stem": "cifar", "head": "mlp", "head_hidden": [6, 4]},
        ),
    ],
)
def test_a_port_describes_its_network_and_keeps_every_bit(name, arguments, tmp_path):
    head_dropout = (0.0,) * 3 if arguments["head"] == "mlp" else None
    state_dict = draw(abstract(name, **arguments, head_dropout=head_dropout))
    pretrained.write(state_dict, tmp_path / "file.safetensors")
    about = pretrained.port(tmp_path / "file.safetensors", tmp_path / "ported")
    assert about["model"].items() >= {"name": name, "width": WIDTH, **arguments}.items()
    assert json.loads((tmp_path / "ported" / "port.json").read_text()) == about
    digest = hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()
    assert (about["source"], about["sha256"]) == ("file.safetensors", digest)
    assert about["shapes"] == {name: list(value.shape) for name, value in state_dict.items()}
    assert_same(ported_state_dict(tmp_path / "ported"), state_dict)


def ported_state_dict(directory):
    """Returns a port's tensors under torchvision's names."""
    description, arrays = pretrained.load_port(directory)
    model = nnx.eval_shape(lambda: models.create(**description, rngs=nnx.Rngs(0)))
    nnx.update(model, functional.insert(arrays, nnx.to_pure_dict(nnx.state(model))))
    return weights.to_torchvision(model)


def test_ported_directories_are_not_overwritten_and_appear_whole(file, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another directory"):
        pretrained.port(file, tmp_path / "taken")
    with pytest.raises(ConfigError, match="cannot be written: .*; choose another directory"):
        pretrained.port(file, file / "below")


def test_a_run_starts_from_exactly_the_ported_weights(resnet_config, drawn, capsys):
    resnet_config.model.stem = "cifar"
    part = data.load(resnet_config).train.take(slice(40))
    program = Program(resnet_config, parallel.setup(resnet_config), data.Splits(part, part, part))
    state = program.init()
    output = capsys.readouterr().out
    assert "99 of 102 tensors start from" in output
    assert "left out: conv1, fc" in output
    start = weights.to_torchvision(functional.merge(program.graphdefs, state.params, state.stats))
    replaced = ("conv1.weight", "fc.weight", "fc.bias")
    assert_same(start, drawn | {name: start[name] for name in replaced})
    assert [start[name].shape for name in replaced] == [(WIDTH, 3, 3, 3), (100, 64), (100,)]
    for name, fan_in in (("conv1.weight", 27), ("fc.weight", 64), ("fc.bias", 64)):
        # The largest of 100 or more draws from U(-b, b), b = fan_in**-0.5, falls below 0.8 b once
        # in 1e9 times.
        assert 0.8 < abs(start[name]).max() * fan_in**0.5 <= 1


def test_nothing_is_left_out_of_the_same_network(resnet_config, tmp_path, capsys):
    arguments = {"stem": "cifar", "head": "mlp", "head_hidden": (32, 16)}
    state_dict = draw(abstract(num_classes=5, **arguments, head_dropout=(0.0,) * 3))
    pretrained.write(state_dict, tmp_path / "file.safetensors")
    pretrained.port(tmp_path / "file.safetensors", tmp_path / "ported")
    resnet_config.model.pretrained = str(tmp_path / "ported")
    resnet_config.model.stem = "cifar"
    resnet_config.model.head, resnet_config.model.head_hidden = "mlp", (32, 16)
    assert len(pretrained.load(resnet_config, 5)) == len(state_dict)
    assert "left out" not in capsys.readouterr().out


def test_no_pretrained_weights_by_default(small_config):
    assert pretrained.load(small_config, 100) == {}


def test_torchvision_is_ported_once_and_then_cached(resnet_config, file, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCIFAR_CACHE", str(tmp_path / "cache"))
    downloads = []
    monkeypatch.setattr(pretrained, "download", lambda name: downloads.append(name) or file)
    resnet_config.model.pretrained = "torchvision"
    first, again = (pretrained.load(resnet_config, 100) for _ in range(2))
    assert downloads == ["resnet18"]
    assert_same(first, again)


def test_another_networks_weights_are_refused(resnet_config, file, tmp_path):
    resnet_config.model.name = "resnet34"
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, .* resnet34 of width 8"):
        pretrained.load(resnet_config, 100)
    resnet_config.model.pretrained = str(tmp_path)
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        pretrained.load(resnet_config, 100)
    pretrained.port(file, tmp_path / "damaged")
    (tmp_path / "damaged" / "arrays" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        pretrained.load_port(tmp_path / "damaged")


# --- files that are not what they say -------------------------------------------------------------


class Code:
    """What a pickle must not run."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_damaged_or_wrong_safetensors_are_refused(file, tmp_path):
    cut(file)
    witness = tmp_path / "ran"
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    (tmp_path / "empty.safetensors").touch()
    for name in ("drawn", "pickle", "empty"):
        with pytest.raises(ConfigError, match=r"is not a whole \.safetensors file"):
            pretrained.port(tmp_path / f"{name}.safetensors", tmp_path / "ported")
    assert not witness.exists()
    assert not (tmp_path / "ported").exists()
    (tmp_path / "file.bin").touch()
    for name, message in (("none.safetensors", "there is no file"), ("file.bin", "must end in")):
        with pytest.raises(ConfigError, match=message):
            pretrained.read(tmp_path / name)


@pytest.mark.torch
def test_pth_files_are_read_and_refused_without_running_code(drawn, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in drawn.items()}
    good = tmp_path / "good.pth"
    torch.save(tensors, good)
    assert_same(pretrained.read(good), drawn)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    named = good.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert_same(pretrained.read(named), drawn)

    bad = tmp_path / "resnet18-00000000.pth"
    named.rename(bad)
    with pytest.raises(ConfigError, match=f"its sha256 begins with {digest[:8]}"):
        pretrained.read(bad)
    cut(bad.rename(good))
    with pytest.raises(ConfigError, match="it is damaged"):
        pretrained.read(good)
    witness = tmp_path / "ran"
    torch.save({"conv1.weight": Code(witness)}, good)
    with pytest.raises(ConfigError, match=r"refers to code, \w+.mkdir; nothing in it was run"):
        pretrained.read(good)
    good.write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    with pytest.raises(ConfigError, match="not a plain state dict"):
        pretrained.read(good)
    assert not witness.exists()
    torch.save({"state_dict": tensors}, good)
    with pytest.raises(ConfigError, match="tensors by name only"):
        pretrained.read(good)


def test_a_pth_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "file.pth").touch()
    with pytest.raises(ConfigError, match=r"jaxcifar\[torch\]"):
        pretrained.read(tmp_path / "file.pth")


# --- the download ---------------------------------------------------------------------------------


def test_without_a_network_the_offline_way_is_named(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = run_script("port_torchvision", f"--output={tmp_path / 'ported'}", **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "huggingface.co/timm/resnet18.tv_in1k" in line
    assert "--input=model.safetensors" in line


def test_a_download_is_checked(file, monkeypatch):
    requests = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, **k: requests.append((a, k)) or str(file)
    )
    with pytest.raises(ConfigError, match=f"its sha256 is {pretrained.sha256(file)}"):
        pretrained.download("resnet18")
    source = pretrained.TORCHVISION["resnet18"]
    assert requests == [((source.repo, "model.safetensors"), {"revision": source.revision})]
    source = pretrained.Source("r", "c", pretrained.sha256(file))
    monkeypatch.setitem(pretrained.TORCHVISION, "resnet18", source)
    assert pretrained.download("resnet18") == file


# --- a run, from ported weights to export ---------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def run(directory, resnet_config):
    """A finished run of 50 steps: trained once, by the first test that needs it."""
    train.train_and_evaluate(resnet_config, directory)
    return Run(resnet_config, directory)


def test_a_narrow_resnet_learns_the_synthetic_set(run):
    losses = [record["train_loss"] for record in run.records()]
    assert losses == sorted(losses, reverse=True)
    # Guessing has log(100). Measured: REPLACE below it; what rounding changes over 50 steps stays
    # far below the margin.
    assert losses[-1] < math.log(100) - 0.3


def test_load_model_is_the_model_that_was_scored(run):
    model, config = checkpoint.load_model(run.directory)
    assert config == run.config
    summary = json.loads((run.directory / "summary.json").read_text())
    graphdefs, params, stats = functional.split(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == summary["num_params"]
    test = data.load(config).test
    score = evaluate.make_evaluate(graphdefs, config, parallel.setup(config))
    loss, accuracy = score(params, stats, test.images, test.labels)
    assert accuracy == pytest.approx(summary["test_acc"])
    # The program is another one where the arrays are placed differently: float32 rounding
    assert loss == pytest.approx(summary["test_loss"], rel=1e-5)


def test_load_model_finds_steps_and_names_mistakes(run, tmp_path):
    last, _ = checkpoint.load_model(run.directory, "last")
    by_step, _ = checkpoint.load_model(run.directory, 50)
    assert_same(weights.to_torchvision(last), weights.to_torchvision(by_step))
    with pytest.raises(ConfigError, match=r"no checkpoint 7; .* the steps \[.*50\]"):
        checkpoint.load_model(run.directory, 7)
    with pytest.raises(ConfigError, match="holds no run"):
        checkpoint.load_model(tmp_path)


def test_load_model_finds_the_number_of_classes(small_config, tmp_path):
    model = nnx.eval_shape(
        lambda: models.create("simple_cnn", num_classes=7, rngs=nnx.Rngs(0), width=4)
    )
    _, *arrays = functional.split(model)
    params, stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), arrays)
    Run.claim(small_config, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save_best(1, {"params": params, "stats": stats}, Progress("fingerprint", 1))
    checkpoints.close()
    model, _ = checkpoint.load_model(tmp_path)
    assert model.fc2.bias.shape == (7,)


def test_export_and_port_give_the_same_bits(run, tmp_path):
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
def test_torch_loads_an_export_strictly_and_scores_the_same(run, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(make_resnet, "NUM_CLASSES", 100)
    theirs = make_resnet.build(
        torch_reference.torchvision(), "resnet18", "imagenet", "linear", width=WIDTH
    )
    model, _ = checkpoint.load_model(run.directory)
    make_resnet.set_weights(theirs, weights.to_torchvision(model))
    images = make_resnet.images("imagenet")
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    graphdefs, params, stats = functional.split(model)
    ours = jax.jit(lambda *arrays: functional.apply_eval(graphdefs, *arrays))(
        params, stats, images.transpose(0, 2, 3, 1)
    )
    # Float32 rounding of 18 layers, relative to the largest logit
    np.testing.assert_allclose(ours, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("port_torchvision", [], "--output is missing"),
        ("port_torchvision", ["--output=x", "--input=nosuch.pth"], "no file 'nosuch.pth'"),
        ("port_torchvision", ["--outptu=x"], "outptu"),
        ("export_torchvision", ["--output=x.safetensors"], "--workdir is missing"),
        ("export_torchvision", ["--workdir=x", "--output=x.pth"], "*.safetensors"),
        ("export_torchvision", ["--workdir=nosuch", "--output=x.safetensors"], "holds no run"),
    ],
)
def test_mistakes_exit_with_2_and_a_plain_line(script, flags, message):
    done = run_script(script, *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("script", ["port_torchvision", "export_torchvision"])
def test_help_exits_with_0(script):
    done = run_script(script, "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout
