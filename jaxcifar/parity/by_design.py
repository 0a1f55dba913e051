"""Rows of what differs by design, with the reason; such a row fails if nothing differs."""

import jax
import numpy as np
import torch

from jaxcifar import augment
from jaxcifar.models import functional, layers
from jaxcifar.parity import networks
from jaxcifar.parity.given import jit, pictures, unit_floats
from jaxcifar.parity.mixing import draws
from jaxcifar.parity.rows import ABSOLUTE, RELATIVE, row
from jaxcifar.parity.torch_networks import channels_first, channels_last
from jaxcifar.torchvision_compat import import_torchvision

GROUP = "Different by design"

v2 = import_torchvision().transforms.v2


@row(
    "the numbers drawn for seed 0",
    group=GROUP,
    against="torch.manual_seed, torch.rand",
    tolerance=0,
    reason="JAX's generator computes every draw from a key, which is what makes a run resume and "
    "spread over devices to the same bits; a seed's draws are not PyTorch's",
    measure=ABSOLUTE,
    dtype="float32",
    by_design=True,
)
def seed() -> tuple:
    torch.manual_seed(0)
    return jax.random.uniform(jax.random.key(0), (1000,)), torch.rand(1000).numpy()


@row(
    "three transforms in a row (bilinear rotation, contrast, saturation), in 255ths",
    group=GROUP,
    against="torchvision.transforms.v2.functional on uint8",
    tolerance=1,
    reason="torchvision's uint8 images become integers after every transform, ours stay floats; "
    "alone, each is within one level",
    measure=ABSOLUTE,
    dtype="float32",
    by_design=True,
)
def rounding_between_transforms() -> tuple:
    images, f = pictures(), v2.functional

    def ours(image):
        image = augment.rotate(image, 20.0, "bilinear")
        return augment.adjust_saturation(augment.adjust_contrast(image, 1.9), 1.9)

    theirs = f.rotate(channels_first(images), 20.0, v2.InterpolationMode.BILINEAR)
    theirs = f.adjust_saturation(f.adjust_contrast(theirs, 1.9), 1.9)
    return 255 * np.asarray(jit(jax.vmap(ours))(unit_floats(images))), channels_last(theirs)


@row(
    "mixup's partner of a batch's first row: how often it is each of 8 rows",
    group=GROUP,
    against="torchvision.transforms.v2.MixUp",
    tolerance=0.5,
    reason="torchvision's is always the row before; ours is drawn, as in the authors' code",
    measure=ABSOLUTE,
    dtype="float32",
    by_design=True,
)
def partners() -> tuple:
    shares = draws(augment.mixup, 8, 1.0, 1, 1)[1][:, 0].copy()
    shares[:, 0][(shares[:, 1:] > 0).any(1)] = 0
    mixed = v2.MixUp(num_classes=8)(torch.zeros(8, 1, 2, 2), torch.arange(8))[1].numpy()[0]
    mixed[0] = 0
    return (shares > 0).mean(0), (mixed > 0).astype(float)


@row(
    "SimpleCNN's logits, if the weights of its first linear layer are copied without reordering",
    group=GROUP,
    against="torch.nn.Flatten",
    tolerance=1e-3,
    reason="ours flattens [H, W, C], PyTorch [C, H, W]; the rows above reorder the inputs",
    measure=RELATIVE,
    by_design=True,
)
def flattening() -> tuple:
    model, net = networks.with_weights(networks.Case("simple_cnn", width=8))
    graphdefs, params, stats = functional.split(model)
    with torch.no_grad():
        net.fc1.weight.copy_(torch.tensor(np.asarray(params["fc1"]["kernel"]).T))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    ours = jit(lambda *x: functional.apply_eval(graphdefs, *x))(params, stats, images)
    return ours, net.eval()(channels_first(images)).detach().numpy()


@row(
    "whether BatchNorm trains on a batch that has one value per channel (1 yes, 0 no)",
    group=GROUP,
    against="torch.nn.BatchNorm1d",
    tolerance=0,
    reason="PyTorch raises ValueError; here the variance is 0, so that an epoch's last batch may "
    "have one image",
    measure=ABSOLUTE,
    by_design=True,
)
def single_values() -> tuple:
    ours = np.asarray(layers.BatchNorm(3)(np.ones((1, 3))))
    try:
        torch.nn.BatchNorm1d(3)(torch.ones(1, 3))
        theirs = 1
    except ValueError:
        theirs = 0
    return int(np.isfinite(ours).all()), theirs
