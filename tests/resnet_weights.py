"""Narrow ResNets and weights drawn for them."""

import numpy as np
from flax import nnx
from golden import make_resnet

from jaxcifar import models, pretrained, state_dict_files, weights
from jaxcifar.models import functional

WIDTH = 8


def abstract(name="resnet18", *, num_classes=1000, stem="imagenet", width=WIDTH, **arguments):
    """An abstract ResNet; by default with torchvision's stem and number of classes."""
    return nnx.eval_shape(
        lambda: models.create(
            name, num_classes=num_classes, rngs=nnx.Rngs(0), width=width, stem=stem, **arguments
        )
    )


def draw(model, seed=0):
    """A state dict for a ResNet, abstract or not."""
    return make_resnet.draw_weights(weights.shapes(model), seed)


def assert_same(ours, theirs):
    """The same names and the same bits."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
        assert ours[name].dtype == value.dtype


def port(state_dict, directory):
    """Writes a state dict as a file, ports it, and returns the ported directory."""
    state_dict_files.write(state_dict, directory / "file.safetensors")
    pretrained.port(directory / "file.safetensors", directory / "ported")
    return directory / "ported"


def ported_state_dict(directory):
    """Returns a port's tensors under torchvision's names."""
    description, arrays = pretrained.load_port(directory)
    model = nnx.eval_shape(lambda: models.create(**description, rngs=nnx.Rngs(0)))
    nnx.update(model, functional.insert(arrays, nnx.to_pure_dict(nnx.state(model))))
    return weights.to_torchvision(model)
