import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcifar import models
from jaxcifar.models import functional

SMALL = {"depth": 10, "widen_factor": 2}


@pytest.mark.parametrize(
    ("depth", "widen_factor", "num_classes", "count"),
    [(28, 10, 10, 36_479_194), (40, 2, 100, 2_255_156)],
)
def test_parameter_counts_match_the_paper(depth, widen_factor, num_classes, count):
    model = nnx.eval_shape(
        lambda: models.create(
            "wide_resnet",
            num_classes=num_classes,
            depth=depth,
            widen_factor=widen_factor,
            rngs=nnx.Rngs(0),
        )
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(functional.split(model)[1])) == count


def test_dropout_between_the_convolutions_acts_in_training_only():
    arguments = {"depth": 10, "widen_factor": 1, "block_dropout": 0.5}
    model = nnx.eval_shape(
        lambda: models.create("wide_resnet", num_classes=10, rngs=nnx.Rngs(0), **arguments)
    )
    graphdefs, *shapes = functional.split(model)
    rng = np.random.default_rng(0)
    arrays = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    train = jax.jit(lambda key: functional.apply_train(graphdefs, *arrays, images, key)[0])
    first, again, other = (np.asarray(train(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert first.dtype == np.float32
    model.eval()
    dropouts = [layer for _, layer in nnx.iter_graph(model) if isinstance(layer, nnx.Dropout)]
    assert [layer.deterministic for layer in dropouts] == [True] * 3


def torch_wide_resnet(torch, depth, widen_factor, num_classes):
    """The paper's network in idiomatic PyTorch."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, in_planes, planes, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(in_planes)
            self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.shortcut = None
            if stride != 1 or in_planes != planes:
                self.shortcut = nn.Conv2d(in_planes, planes, 1, stride, bias=False)

        def forward(self, x):
            y = functional.relu(self.bn1(x))
            shortcut = x if self.shortcut is None else self.shortcut(y)
            return shortcut + self.conv2(functional.relu(self.bn2(self.conv1(y))))

    class WideResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            planes = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
            blocks = []
            for group in range(3):
                for index in range((depth - 4) // 6):
                    stride = 2 if group > 0 and index == 0 else 1
                    blocks.append(Block(planes[group + (index > 0)], planes[group + 1], stride))
            self.blocks = nn.Sequential(*blocks)
            self.bn = nn.BatchNorm2d(planes[3])
            self.fc = nn.Linear(planes[3], num_classes)

        def forward(self, x):
            x = functional.relu(self.bn(self.blocks(self.conv1(x))))
            return self.fc(x.mean((2, 3)))

    return WideResNet()


@pytest.mark.torch
def test_training_step_matches_pytorch_in_float64():
    """Logits, running statistics and every gradient: 1e-9 of the tensor's largest value, where
    float64 rounding through ten layers leaves about 1e-13.
    """
    torch = pytest.importorskip("torch")
    theirs = torch_wide_resnet(torch, num_classes=10, **SMALL).double().train()
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(4, 16, 16, 3)), np.arange(4)
    names = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}

    def to_torch(tree):
        """Returns our arrays under PyTorch's names, in PyTorch's layouts."""
        tensors = {}
        for path, leaf in functional.flatten(tree).items():
            module, _, name = path.rpartition(".")
            axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[leaf.ndim]
            tensors[f"{module}.{names.get(name, name)}"] = np.asarray(leaf).transpose(axes).copy()
        return tensors

    with jax.enable_x64(True):
        model = models.create(
            "wide_resnet", num_classes=10, rngs=nnx.Rngs(0), dtype=jnp.float64, **SMALL
        )
        graphdefs, params, stats = functional.split(model)
        params, stats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, stats))
        state_dict = {k: torch.from_numpy(v) for k, v in to_torch(params).items()}
        assert set(state_dict) == {name for name, _ in theirs.named_parameters()}
        theirs.load_state_dict(state_dict, strict=False)

        @jax.jit
        def step(params, stats):
            def loss_fn(params):
                logits, new_stats = functional.apply_train(
                    graphdefs, params, stats, images, jax.random.key(0)
                )
                log_likelihoods = jax.nn.log_softmax(logits)[np.arange(4), labels]
                return -log_likelihoods.mean(), (logits, new_stats)

            return jax.grad(loss_fn, has_aux=True)(params)

        grads, (logits, stats) = step(params, stats)
        ours = to_torch(grads) | to_torch(stats)

    outputs = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels)).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    expected |= {name: value for name, value in theirs.named_buffers() if "running" in name}
    expected["logits"] = outputs.detach()
    ours["logits"] = np.asarray(logits)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-9 * abs(value).max().item())
