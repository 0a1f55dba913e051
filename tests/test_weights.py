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

from jaxcifar import (
    checkpoint,
    data,
    evaluate,
    models,
    optimizers,
    parallel,
    step,
    train,
    weights,
    workdir,
)
from jaxcifar.config import ConfigError

WIDTH = 8


def abstract(name="resnet18", num_classes=1000, width=WIDTH, stem="imagenet", **given):
    return nnx.eval_shape(
        lambda: models.create(
            name, num_classes=num_classes, rngs=nnx.Rngs(0), width=width, stem=stem, **given
        )
    )


@pytest.fixture
def state_dict():
    """A narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return make_resnet.draw_weights(weights.shapes(abstract()))


@pytest.fixture
def file(state_dict, tmp_path):
    path = tmp_path / "drawn.safetensors"
    weights.write(state_dict, path)
    return path


@pytest.fixture
def resnet_config(small_config):
    small_config.data.synthetic_size = 500
    small_config.batch_size = 40
    small_config.eval.batch_size = 100
    small_config.num_epochs = 6
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.optimizer.lr = 0.05
    return small_config


def run_script(name, *flags):
    root = pathlib.Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, root / "scripts" / f"{name}.py", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )


def assert_same(ours, theirs):
    """The same names and the same bits."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
        assert ours[name].dtype == value.dtype


# The mapping


@pytest.mark.parametrize("name", list(models.RESNETS))
def test_there_and_back_is_the_same_bits(name):
    model = abstract(name, num_classes=10, stem="cifar", head="mlp", head_hidden=(6, 4))
    drawn = make_resnet.draw_weights(weights.shapes(model))
    weights.from_torchvision(model, drawn)
    assert_same(weights.to_torchvision(model), drawn)


def test_every_wrong_tensor_is_listed(state_dict):
    model = abstract()
    missing = [name for name in state_dict if name.startswith("layer3.")]
    for name in missing:
        del state_dict[name]
    state_dict |= {"layer5.0.conv1.weight": np.zeros((1, 1, 1, 1)), "bn1.bias": np.zeros(3)}
    with pytest.raises(ConfigError) as caught:
        weights.from_torchvision(model, state_dict)
    said = str(caught.value)
    assert all(name in said for name in missing)
    assert f"{len(missing)} missing" in said
    assert "1 extra: layer5.0.conv1.weight" in said
    assert "1 wrongly shaped: bn1.bias (3,) instead of (8,)" in said


def test_counters_are_accepted_where_there_is_batch_norm(state_dict):
    state_dict["bn1.num_batches_tracked"] = np.int64(7)
    weights.from_torchvision(abstract(), state_dict)
    state_dict["conv1.num_batches_tracked"] = np.int64(7)
    with pytest.raises(ConfigError, match=r"1 extra: conv1\.num_batches_tracked"):
        weights.from_torchvision(abstract(), state_dict)


def test_what_is_skipped_keeps_its_value(state_dict):
    model = abstract(num_classes=100, stem="cifar")
    before = make_resnet.draw_weights(weights.shapes(model), seed=1)
    weights.from_torchvision(model, before)
    weights.from_torchvision(model, state_dict, skip=("conv1", "fc"))
    skipped = {name: before[name] for name in ("conv1.weight", "fc.weight", "fc.bias")}
    assert_same(weights.to_torchvision(model), state_dict | skipped)  # layer1.0.conv1 is not conv1
    with pytest.raises(ConfigError, match="nowhere: head"):
        weights.from_torchvision(model, state_dict, skip=("conv1", "fc", "head"))


def test_other_networks_are_refused():
    model = abstract("simple_cnn")
    with pytest.raises(ValueError, match="no SimpleCNN"):
        weights.to_torchvision(model)


# Ported directories


@pytest.mark.parametrize("name", list(models.RESNETS))
def test_a_port_knows_its_network_and_keeps_every_bit(name, tmp_path):
    given = {"num_classes": 7, "stem": "cifar", "head": "mlp", "head_hidden": [6, 4]}
    model = abstract(name, **given)
    drawn = make_resnet.draw_weights(weights.shapes(model))
    weights.write(drawn, tmp_path / "file.safetensors")
    about = weights.port(tmp_path / "file.safetensors", tmp_path / "ported")
    assert about["model"].items() >= {"name": name, "width": WIDTH, **given}.items()
    assert json.loads((tmp_path / "ported" / "port.json").read_text()) == about
    digest = hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()
    assert (about["source"], about["sha256"]) == ("file.safetensors", digest)
    assert about["shapes"]["conv1.weight"] == [WIDTH, 3, 3, 3]
    _, arrays = weights.load_port(tmp_path / "ported")
    nnx.update(model, models.insert(arrays, nnx.to_pure_dict(nnx.state(model))))
    assert_same(weights.to_torchvision(model), drawn)


def test_a_run_starts_from_exactly_the_ported_weights(
    resnet_config, state_dict, file, tmp_path, capsys
):
    weights.port(file, tmp_path / "ported")
    resnet_config.model.pretrained = str(tmp_path / "ported")
    mesh = parallel.setup(resnet_config)
    network, state = step.init_state(
        resnet_config, optimizers.create(resnet_config), num_classes=100, mesh=mesh
    )
    said = capsys.readouterr().out
    assert "99 of 102 tensors start from" in said
    assert "left out: conv1, fc" in said
    started = weights.to_torchvision(nnx.merge(network.train, state.params, state.stats))
    fresh = ("conv1.weight", "fc.weight", "fc.bias")
    assert_same(started, state_dict | {name: started[name] for name in fresh})
    assert [started[name].shape for name in fresh] == [(WIDTH, 3, 3, 3), (100, 64), (100,)]
    for name, fan_in in (("conv1.weight", 27), ("fc.weight", 64), ("fc.bias", 64)):
        assert 0.8 < abs(started[name]).max() * fan_in**0.5 <= 1


def test_nothing_is_left_out_of_the_same_network(resnet_config, tmp_path, capsys):
    given = {"stem": "cifar", "head": "mlp", "head_hidden": (32, 16)}
    drawn = make_resnet.draw_weights(weights.shapes(abstract(num_classes=5, **given)))
    weights.write(drawn, tmp_path / "file.safetensors")
    weights.port(tmp_path / "file.safetensors", tmp_path / "ported")
    resnet_config.model.pretrained = str(tmp_path / "ported")
    resnet_config.model.head, resnet_config.model.head_hidden = "mlp", (32, 16)
    assert len(weights.pretrained(resnet_config, 5)) == len(drawn)
    assert "left out" not in capsys.readouterr().out


def test_torchvision_is_ported_once_and_then_cached(resnet_config, file, monkeypatch):
    fetched = []
    monkeypatch.setattr(weights, "download", lambda name: fetched.append(name) or file)
    resnet_config.model.pretrained = "torchvision"
    first, again = (weights.pretrained(resnet_config, 100) for _ in range(2))
    assert fetched == ["resnet18"]
    assert_same(first, again)


def test_another_networks_weights_are_refused(resnet_config, file, tmp_path):
    weights.port(file, tmp_path / "ported")
    resnet_config.model.pretrained = str(tmp_path / "ported")
    resnet_config.model.name = "resnet34"
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, .* resnet34 of width 8"):
        weights.pretrained(resnet_config, 100)
    resnet_config.model.pretrained = str(tmp_path)
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        weights.pretrained(resnet_config, 100)
    (tmp_path / "ported" / "arrays" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match="is not a directory that scripts/port_torchvision"):
        weights.load_port(tmp_path / "ported")


# Files that are not what they claim


class Code:
    """What a pickle must not run."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_safetensors_that_are_none_are_refused(file, tmp_path):
    cut(file)
    witness = tmp_path / "ran"
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    (tmp_path / "empty.safetensors").touch()
    for name in ("drawn", "pickle", "empty"):
        with pytest.raises(ConfigError, match=r"is not a whole \.safetensors file"):
            weights.port(tmp_path / f"{name}.safetensors", tmp_path / "ported")
    assert not witness.exists()
    assert not (tmp_path / "ported").exists()
    for name, said in (("none.safetensors", "there is no file"), ("ran.bin", "must end in")):
        (tmp_path / "ran.bin").touch()
        with pytest.raises(ConfigError, match=said):
            weights.read(tmp_path / name)


def test_other_architectures_are_refused_in_a_few_lines(state_dict, file, tmp_path):
    for name in list(state_dict):
        if name.startswith("layer4.1."):
            del state_dict[name]
    weights.write(state_dict, file)
    with pytest.raises(ConfigError, match=r"compared with resnet18:\n  10 missing: .*, …$"):
        weights.port(file, tmp_path / "ported")
    weights.write({"features.0.weight": np.zeros((2, 2), np.float32)}, file)
    with pytest.raises(ConfigError, match=r"holds no ResNet.*features\.0\.weight"):
        weights.port(file, tmp_path / "ported")


@pytest.mark.torch
def test_pth_files_are_read_and_refused_without_running_code(state_dict, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    good = tmp_path / "good.pth"
    torch.save(tensors, good)
    assert_same(weights.read(good), state_dict)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    named = good.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert_same(weights.read(named), state_dict)

    bad = tmp_path / "resnet18-00000000.pth"
    named.rename(bad)
    with pytest.raises(ConfigError, match=f"its sha256 begins with {digest[:8]}"):
        weights.read(bad)
    cut(bad.rename(good))
    with pytest.raises(ConfigError, match="it is damaged"):
        weights.read(good)
    witness = tmp_path / "ran"
    torch.save({"conv1.weight": Code(witness)}, good)
    with pytest.raises(ConfigError, match=r"refers to code, \w+.mkdir; nothing in it was run"):
        weights.read(good)
    good.write_bytes(pickle.dumps({"conv1.weight": Code(witness)}))
    with pytest.raises(ConfigError, match="not a plain state dict"):
        weights.read(good)
    assert not witness.exists()
    torch.save({"state_dict": tensors}, good)
    with pytest.raises(ConfigError, match="tensors by name only"):
        weights.read(good)


def test_a_pth_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "file.pth").touch()
    with pytest.raises(ConfigError, match=r"jaxcifar\[torch\]"):
        weights.read(tmp_path / "file.pth")


# The download


def test_without_a_network_the_offline_way_is_named(tmp_path):
    flags = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    code = f"{sys.executable} scripts/port_torchvision.py --output={tmp_path / 'ported'}"
    done = subprocess.run(
        code.split(),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | flags,
        cwd=pathlib.Path(__file__).parents[1],
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "huggingface.co/timm/resnet18.tv_in1k" in line
    assert "--input=model.safetensors" in line


def test_a_download_is_checked(file, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(file)
    )
    with pytest.raises(ConfigError, match=f"its sha256 is {weights.sha256(file)}"):
        weights.download("resnet18")
    source = weights.TORCHVISION["resnet18"]
    assert asked == [((source.repo, "model.safetensors"), {"revision": source.revision})]
    monkeypatch.setitem(
        weights.TORCHVISION, "resnet18", weights.Source("r", "c", weights.sha256(file))
    )
    assert weights.download("resnet18") == file


# A run, from training to export


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("weights") / "run"


@pytest.fixture
def run(directory, resnet_config):
    """The work directory of a narrow ResNet's run on the synthetic set, made once."""
    train.train_and_evaluate(resnet_config, directory)
    return directory


def test_a_narrow_resnet_learns_the_synthetic_set(run):
    losses = [record["train_loss"] for record in workdir.records(run)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < math.log(100) - 0.3  # guessing has log(100)


def test_load_model_is_the_model_that_was_scored(run, resnet_config):
    model, config = checkpoint.load_model(run)
    assert config == resnet_config
    summary = json.loads((run / "summary.json").read_text())
    network, params, stats = models.split(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == summary["num_params"]
    mesh = parallel.setup(config)
    test = data.load(config).test
    score = evaluate.make_evaluate(network, config, mesh)
    loss, accuracy = score(params, stats, test.images, test.labels)
    assert accuracy == pytest.approx(summary["test_acc"])
    assert loss == pytest.approx(summary["test_loss"], rel=1e-5)


def test_load_model_finds_steps_and_names_mistakes(run, tmp_path):
    last, _ = checkpoint.load_model(run, "last")
    by_step, _ = checkpoint.load_model(run, 60)
    assert_same(weights.to_torchvision(last), weights.to_torchvision(by_step))
    with pytest.raises(ConfigError, match=r"no checkpoint 7; .* the steps \[.*60\]"):
        checkpoint.load_model(run, 7)
    with pytest.raises(ConfigError, match="holds no run"):
        checkpoint.load_model(tmp_path)


def test_export_and_port_give_the_same_bits_and_torch_takes_them(run, tmp_path):
    output = tmp_path / "model.safetensors"
    done = run_script("export_torchvision", f"--workdir={run}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    exported = safetensors.numpy.load_file(output)
    model, _ = checkpoint.load_model(run)
    assert_same(exported, weights.to_torchvision(model))
    done = run_script("port_torchvision", f"--input={output}", f"--output={tmp_path / 'ported'}")
    assert done.returncode == 0, done.stderr
    assert "resnet18 of width 8, cifar stem, linear head, 100 classes" in done.stdout
    description, arrays = weights.load_port(tmp_path / "ported")
    ported = nnx.eval_shape(lambda: models.create(**description, rngs=nnx.Rngs(0)))
    nnx.update(ported, models.insert(arrays, nnx.to_pure_dict(nnx.state(ported))))
    assert_same(weights.to_torchvision(ported), exported)


@pytest.mark.torch
def test_torch_loads_an_export_strictly_and_scores_the_same(run, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(make_resnet, "NUM_CLASSES", 100)
    theirs = make_resnet.build(
        torch_reference.torchvision(), "resnet18", "cifar", "linear", width=WIDTH
    )
    model, _ = checkpoint.load_model(run)
    make_resnet.set_weights(theirs, weights.to_torchvision(model))
    images = make_resnet.images("cifar")
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    network, params, stats = models.split(model)
    ours = jax.jit(lambda *a: models.apply_eval(network, *a))(
        params, stats, images.transpose(0, 2, 3, 1)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        ("port_torchvision", [], "--output is missing"),
        ("port_torchvision", ["--output=x", "--input=nosuch.pth"], "no file 'nosuch.pth'"),
        ("port_torchvision", ["--output=tests", "--input=LICENSE"], "exists already"),
        ("port_torchvision", ["--outptu=x"], "outptu"),
        ("export_torchvision", ["--output=x.safetensors"], "--workdir is missing"),
        ("export_torchvision", ["--workdir=x", "--output=x.pth"], "*.safetensors"),
        ("export_torchvision", ["--workdir=nosuch", "--output=x.safetensors"], "holds no run"),
    ],
)
def test_mistakes_exit_with_2_and_a_plain_line(script, flags, said, pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)
    done = run_script(script, *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("script", ["port_torchvision", "export_torchvision"])
def test_help_exits_with_0(script):
    done = run_script(script, "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout


def test_only_resnets_can_be_exported(small_config, tmp_path):
    _, *arrays = models.split(abstract("simple_cnn", num_classes=7, width=4))
    params, stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), arrays)
    workdir.claim(small_config, tmp_path)
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save_best(1, {"params": params, "stats": stats}, {})
    checkpoints.close()
    model, _ = checkpoint.load_model(tmp_path)
    assert model.fc2.bias.shape == (7,)
    done = run_script(
        "export_torchvision", f"--workdir={tmp_path}", f"--output={tmp_path / 'x.safetensors'}"
    )
    assert done.returncode == 2
    assert "holds a simple_cnn" in done.stderr
