import dataclasses
import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from resnet_weights import WIDTH, abstract, assert_same, draw, port, ported_state_dict

from jaxcifar import (
    checkpoint,
    data,
    hub,
    models,
    parallel,
    pretrained,
    state_dict_files,
    train,
    weights,
)
from jaxcifar import config as config_lib
from jaxcifar.models import functional
from jaxcifar.program import Program
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError
from jaxcifar.step import TrainState

CLASSES = tuple(map(str, range(100)))


@pytest.fixture(scope="module")
def drawn():
    """The state dict of a narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return draw(abstract())


@pytest.fixture
def file(drawn, tmp_path):
    path = tmp_path / "drawn.safetensors"
    state_dict_files.write(drawn, path)
    return path


@pytest.fixture(scope="module")
def ported(drawn, tmp_path_factory):
    """The directory of its port."""
    return port(drawn, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture
def resnet_config(small_config, ported):
    """A config that starts from the ported weights, with other classes."""
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.model.stem = "imagenet"
    small_config.model.pretrained = str(ported)
    return small_config


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
def test_port_describes_its_network_and_is_bit_exact(name, arguments, tmp_path):
    head_dropout = (0.0,) * 3 if arguments["head"] == "mlp" else None
    state_dict = draw(abstract(name, **arguments, head_dropout=head_dropout))
    state_dict_files.write(state_dict, tmp_path / "file.safetensors")
    metadata = pretrained.port(tmp_path / "file.safetensors", tmp_path / "ported")
    assert metadata["model"].items() >= {"name": name, "width": WIDTH, **arguments}.items()
    assert json.loads((tmp_path / "ported" / "port.json").read_text()) == metadata
    digest = hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()
    assert (metadata["source"], metadata["sha256"]) == ("file.safetensors", digest)
    assert metadata["shapes"] == {name: list(value.shape) for name, value in state_dict.items()}
    assert_same(ported_state_dict(tmp_path / "ported"), state_dict)


def test_port_does_not_overwrite(file, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another directory"):
        pretrained.port(file, tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another directory"):
        pretrained.port(file, file / "below")


def test_port_of_a_damaged_file_leaves_no_directory(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"cannot be read .*; download it again"):
        pretrained.port(file, tmp_path / "ported")
    assert not (tmp_path / "ported").exists()


def test_run_starts_from_the_ported_weights(resnet_config, drawn, capsys):
    resnet_config.model.stem = "cifar"
    part = data.Dataset(np.zeros((50, 32, 32, 3), np.uint8), np.zeros(50, np.int32), CLASSES)
    program = Program(resnet_config, parallel.setup(resnet_config), data.Splits(part, part, part))
    state = program.init()
    output = capsys.readouterr().out
    assert "loaded 99 of 102 tensors from" in output
    assert "(newly initialized: conv1, fc)" in output
    model = nnx.merge(program.graphdefs.train, state.params, state.stats)
    start = weights.to_torchvision(model)
    replaced = ("conv1.weight", "fc.weight", "fc.bias")
    assert_same(start, drawn | {name: start[name] for name in replaced})
    assert [start[name].shape for name in replaced] == [(WIDTH, 3, 3, 3), (100, 64), (100,)]
    for name, fan_in in (("conv1.weight", 27), ("fc.weight", 64), ("fc.bias", 64)):
        # The largest of 100 or more draws from U(-b, b), b = fan_in**-0.5, falls below 0.8 b once
        # in 1e9 times.
        assert 0.8 < abs(start[name]).max() * fan_in**0.5 <= 1


def test_same_network_loads_every_tensor(resnet_config, tmp_path, capsys):
    arguments = {"stem": "cifar", "head": "mlp", "head_hidden": (32, 16)}
    state_dict = draw(abstract(num_classes=5, **arguments, head_dropout=(0.0,) * 3))
    resnet_config.model.pretrained = str(port(state_dict, tmp_path))
    resnet_config.model.stem = "cifar"
    resnet_config.model.head, resnet_config.model.head_hidden = "mlp", (32, 16)
    assert len(pretrained.load(resnet_config, CLASSES[:5])) == len(state_dict)
    assert "newly initialized" not in capsys.readouterr().out


def test_no_pretrained_weights_by_default(small_config):
    assert pretrained.load(small_config, CLASSES) == {}


def test_torchvision_weights_are_those_of_their_file(resnet_config, ported, file, monkeypatch):
    sources = []
    monkeypatch.setattr(hub, "download", lambda source: sources.append(source) or file)
    resnet_config.model.pretrained = "torchvision"
    downloaded = pretrained.load(resnet_config, CLASSES)
    assert sources == [pretrained.TORCHVISION["resnet18"]]
    resnet_config.model.pretrained = str(ported)
    assert_same(downloaded, pretrained.load(resnet_config, CLASSES))


def test_weights_on_the_hub_are_those_of_their_file(resnet_config, ported, file, hub_server):
    commit = hub_server.add("me/net", {"model.safetensors": file.read_bytes()})
    expected = pretrained.load(resnet_config, CLASSES)
    for name in ("hf://me/net", f"hf://me/net@{commit}"):  # not claimed by a run
        resnet_config.model.pretrained = name
        assert_same(pretrained.load(resnet_config, CLASSES), expected)
    resnet_config.pretrained_sha256 = "00"  # as if the file had changed since the run was claimed
    with pytest.raises(ConfigError, match="is not the expected file"):
        pretrained.load(resnet_config, CLASSES)
    hub_server.add("me/net", {"model.safetensors": b"weights"})
    resnet_config.model.pretrained, resnet_config.pretrained_sha256 = "hf://me/net", ""
    with pytest.raises(ConfigError, match=r"model\.safetensors' cannot be read"):
        pretrained.load(resnet_config, CLASSES)


def test_weights_of_another_network_raise(resnet_config, file, tmp_path):
    resnet_config.model.name = "resnet34"
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, .* resnet34 of width 8"):
        pretrained.load(resnet_config, CLASSES)
    resnet_config.model.pretrained = str(tmp_path)
    with pytest.raises(ConfigError, match=r"nor one made by python -m jaxcifar\.port"):
        pretrained.load(resnet_config, CLASSES)
    pretrained.port(file, tmp_path / "damaged")
    (tmp_path / "damaged" / "arrays" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match="are damaged: port them again"):
        pretrained.load_port(tmp_path / "damaged")


def test_values_that_are_not_finite_are_not_ported(drawn, tmp_path):
    broken = drawn | {"conv1.weight": np.full_like(drawn["conv1.weight"], np.nan)}
    state_dict_files.write(broken, tmp_path / "broken.safetensors")
    with pytest.raises(ConfigError, match=r"not finite, in conv1\.weight$"):
        pretrained.port(tmp_path / "broken.safetensors", tmp_path / "ported")
    assert not (tmp_path / "ported").exists()


def test_head_without_classes_raises(drawn, tmp_path):
    empty = {name: array[:0] if name.startswith("fc.") else array for name, array in drawn.items()}
    state_dict_files.write(empty, tmp_path / "empty.safetensors")
    with pytest.raises(ConfigError, match="num_classes=0 is not valid"):
        pretrained.port(tmp_path / "empty.safetensors", tmp_path / "ported")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model": 3}'])
def test_edited_description_raises(ported, tmp_path, content):
    shutil.copytree(ported, tmp_path / "ported")
    (tmp_path / "ported" / "port.json").write_text(content)
    with pytest.raises(ConfigError, match="are damaged: port them again"):
        pretrained.load_port(tmp_path / "ported")


# --- work directories -----------------------------------------------------------------------------


@pytest.fixture
def save_run(tmp_path, add_checkpoint):
    """Writes a run of the classes "a" and "b", with drawn parameters: fn(config, name="run") -> its
    work directory and the parameters and statistics by path.
    """

    def save(config, name="run"):
        model = nnx.eval_shape(lambda: models.from_config(config, num_classes=2, rngs=nnx.Rngs(0)))
        rng = np.random.default_rng(0)
        _, *trees = functional.split(model)
        params, stats = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), trees)
        with Run.claim(config, tmp_path / name) as run:
            add_checkpoint(run, 1, TrainState(jnp.int32(0), params, stats, ()))
        return run.directory, functional.flatten(params) | functional.flatten(stats)

    return save


@pytest.mark.parametrize(
    ("name", "arguments", "head"),
    [
        ("simple_cnn", {"width": 4}, "fc2"),
        ("wide_resnet", {"depth": 10, "widen_factor": 1}, "fc"),
        ("resnet18", {"width": WIDTH}, "fc"),
        ("resnet18", {"width": WIDTH, "head": "mlp", "head_hidden": (6, 4)}, "fc"),
    ],
)
def test_run_is_a_start_but_for_its_head(small_config, save_run, capsys, name, arguments, head):
    small_config.model.update(name=name, width=0)
    small_config.model.update(arguments)
    directory, saved = save_run(small_config)
    small_config.model.pretrained = str(directory)
    config_lib.validate(small_config)
    rest = {path: array for path, array in saved.items() if not path.startswith(f"{head}.")}
    for names, expected in ((("a", "b"), saved), (("b", "a"), rest), (("a", "b", "c"), rest)):
        assert_same(pretrained.load(small_config, names), expected)
        note = f" (newly initialized: {head})" if expected is rest else ""
        line = f"loaded {len(expected)} of {len(saved)} tensors from {directory}{note}\n"
        assert capsys.readouterr().out == line


def test_other_stem_and_head_are_new(small_config, save_run, capsys):
    small_config.model.update(name="resnet18", width=WIDTH)
    directory, saved = save_run(small_config)
    small_config.model.update(pretrained=str(directory), stem="imagenet", head="mlp")
    loaded = pretrained.load(small_config, ("a", "b"))
    assert set(saved) - set(loaded) == {"conv1.kernel", "fc.kernel", "fc.bias"}
    assert "(newly initialized: conv1, fc)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model.width": "5"},
            r"config's simple_cnn: \d+ of the wrong shape: conv1\.bias \(4,\) instead of \(5,\),",
        ),
        (
            {"data.image_size": "64"},
            r"1 of the wrong shape: fc1\.kernel \(256, 64\) instead of \(1024, 64\)$",
        ),
        (
            {"model.name": "wide_resnet", "model.depth": "10"},
            r"of simple_cnn whose arrays are not those of the config's wide_resnet: \d+ missing: ",
        ),
    ],
)
def test_run_of_another_network_raises(small_config, save_run, settings, message):
    directory, _ = save_run(small_config)
    small_config.model.pretrained = str(directory)
    for name, text in settings.items():
        config_lib.override(small_config, name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        pretrained.load(small_config, ("a", "b"))
    assert "\n" not in str(caught.value)


def test_unusable_work_directories_raise(small_config, save_run, tmp_path):
    directory, _ = save_run(small_config)

    def load(path):
        small_config.model.pretrained = str(path)
        return pretrained.load(small_config, ("a", "b"))

    shutil.copytree(directory, tmp_path / "seeds" / "seed-42")
    with pytest.raises(ConfigError, match=r"the runs of 1 seeds: name one, such as .*seed-42"):
        load(tmp_path / "seeds")
    assert load(tmp_path / "seeds" / "seed-42")
    shutil.copytree(directory, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints" / "best")
    with pytest.raises(ConfigError, match=r"has no checkpoint 'best'; available: last"):
        load(tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    (tmp_path / "begun" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not the work directory of a run with a checkpoint"):
        load(tmp_path / "begun")
    (directory / "checkpoints" / "best" / "10" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(ConfigError, match=r"best/10' is damaged; choose another"):
        load(directory)


def test_models_that_cannot_start_from_it_are_refused(small_config, monkeypatch):
    for text in ("torchvision", "hf://owner/net"):
        small_config.model.pretrained = text
        with pytest.raises(ConfigError, match=r"has no weights for model\.name='simple_cnn'"):
            config_lib.validate(small_config)
    small_config.model.pretrained = "runs/mine"
    config_lib.validate(small_config)
    entry = models.MODELS["simple_cnn"]
    monkeypatch.setitem(models.MODELS._entries, "simple_cnn", dataclasses.replace(entry, head=""))
    with pytest.raises(ConfigError, match=r"needs to know the output layer .*: register the model"):
        config_lib.validate(small_config)


def test_head_that_is_no_layer_is_named(small_config, save_run, monkeypatch):
    directory, _ = save_run(small_config)
    small_config.model.pretrained = str(directory)
    entry = models.MODELS["simple_cnn"]
    monkeypatch.setitem(models.MODELS._entries, "simple_cnn", dataclasses.replace(entry, head="fc"))
    with pytest.raises(ConfigError, match=r"registered with head='fc', and has no such layer"):
        pretrained.load(small_config, ("a", "b"))


def test_ported_directory_of_a_resnet_is_refused_for_another_model(small_config, ported):
    small_config.model.pretrained = str(ported)
    with pytest.raises(ConfigError, match=r"holds resnet18 of width 8, but .* is simple_cnn of"):
        pretrained.load(small_config, CLASSES)


def test_own_images_begin_with_a_run(small_config, image_folder, save_run, tmp_path, capsys):
    directory, saved = save_run(small_config)
    small_config.data.update(name="folder", dir=str(image_folder))
    small_config.model.pretrained = str(directory)
    small_config.num_epochs, small_config.optimizer.lr = 1, 1e-9  # it stays where it begins
    train.train_and_evaluate(small_config, tmp_path / "own")
    assert f"loaded 8 of 10 tensors from {directory}" in capsys.readouterr().out
    model, _ = checkpoint.load_model(tmp_path / "own")
    assert model.class_names == ("bright", "dark")
    np.testing.assert_allclose(model.fc1.kernel[...], saved["fc1.kernel"], atol=1e-6)
    assert abs(model.fc2.kernel[...] - saved["fc2.kernel"]).max() > 0.1
