import numpy as np
import pytest
from flax import nnx
from resnet_weights import WIDTH, abstract, assert_same, draw

from jaxcifar import models, weights
from jaxcifar.models.resnet import RESNETS
from jaxcifar.spec import ConfigError


@pytest.fixture(scope="module")
def drawn():
    """The state dict of a narrow ResNet-18 with torchvision's stem and 1000 classes."""
    return draw(abstract())


@pytest.fixture
def state_dict(drawn):
    return dict(drawn)


@pytest.mark.parametrize("name", list(RESNETS))
def test_round_trip_is_bit_exact(name):
    model = abstract(
        name,
        num_classes=10,
        stem="cifar",
        head="mlp",
        head_hidden=(6, 4),
        head_dropout=(0.0,) * 3,
    )
    state_dict = draw(model)
    weights.from_torchvision(model, state_dict)
    assert_same(weights.to_torchvision(model), state_dict)


def test_every_wrong_tensor_is_listed(state_dict):
    model = abstract()
    missing = [name for name in state_dict if name.startswith("layer3.")]
    for name in missing:
        del state_dict[name]
    state_dict |= {"layer5.0.conv1.weight": np.zeros((1, 1, 1, 1)), "bn1.bias": np.zeros(3)}
    with pytest.raises(ConfigError) as error:
        weights.from_torchvision(model, state_dict)
    message = str(error.value)
    assert all(name in message for name in missing)
    assert f"{len(missing)} missing" in message
    assert "1 unexpected: layer5.0.conv1.weight" in message
    assert "1 of the wrong shape: bn1.bias (3,) instead of (8,)" in message


def test_batch_norm_counters_are_accepted(state_dict):
    state_dict["bn1.num_batches_tracked"] = np.int64(7)
    weights.from_torchvision(abstract(), state_dict)
    state_dict["conv1.num_batches_tracked"] = np.int64(7)
    with pytest.raises(ConfigError, match=r"1 unexpected: conv1\.num_batches_tracked"):
        weights.from_torchvision(abstract(), state_dict)


def test_skipped_tensors_are_unchanged(state_dict):
    model = abstract(num_classes=100, stem="cifar")
    before = draw(model, seed=1)
    weights.from_torchvision(model, before)
    weights.from_torchvision(model, state_dict, skip=("conv1", "fc"))
    skipped = {name: before[name] for name in ("conv1.weight", "fc.weight", "fc.bias")}
    assert_same(weights.to_torchvision(model), state_dict | skipped)  # layer1.0.conv1 is not conv1
    with pytest.raises(ConfigError, match=r"neither the network nor the state dict has head$"):
        weights.from_torchvision(model, state_dict, skip=("conv1", "fc", "head"))


def test_other_networks_raise():
    model = nnx.eval_shape(lambda: models.create("simple_cnn", num_classes=10, rngs=nnx.Rngs(0)))
    for use in (weights.to_torchvision, weights.shapes):
        with pytest.raises(ConfigError, match="SimpleCNN has no torchvision counterpart"):
            use(model)
    with pytest.raises(ConfigError, match="SimpleCNN has no torchvision counterpart"):
        weights.from_torchvision(model, {})


@pytest.mark.parametrize("name", list(RESNETS))
def test_network_is_recognized_by_its_tensors(name):
    arguments = {"num_classes": 7, "stem": "cifar", "head": "mlp", "head_hidden": [6, 4]}
    model = abstract(name, **arguments, head_dropout=(0.0,) * 3)
    state_dict = {name: np.empty(shape) for name, shape in weights.shapes(model).items()}
    description, recognized = weights.recognize(state_dict, "file")
    assert description.items() >= {"name": name, "width": WIDTH, **arguments}.items()
    assert weights.shapes(recognized) == weights.shapes(model)


def test_other_architectures_raise_short_errors(state_dict):
    for name in list(state_dict):
        if name.startswith("layer4.1."):
            del state_dict[name]
    with pytest.raises(ConfigError, match=r"compared with resnet18:\n  10 missing: .*, …$"):
        weights.recognize(state_dict, "file")
    with pytest.raises(ConfigError, match=r"'file' is not a ResNet.*features\.0\.weight"):
        weights.recognize({"features.0.weight": np.zeros((2, 2), np.float32)}, "file")
