import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden import make_resnet

from jaxcifar import data, models, parallel, weights
from jaxcifar.models import functional, resnet
from jaxcifar.parity.given import draw_weights
from jaxcifar.program import Program
from jaxcifar.run_schedule import RunSchedule

TOLERANCE = {"resnet18": 1e-5, "resnet34": 1e-4, "resnet50": 1e-4}
STATISTICS_TOLERANCE = {"resnet18": 1e-4, "resnet34": 1e-4, "resnet50": 1e-3}


@pytest.fixture(scope="module")
def golden():
    return np.load(make_resnet.PATH)


def create(name, stem, head, *, width=None, dropout=(0.0, 0.0, 0.0)):
    """Returns our network of the golden files' sizes, with its weights, and their state dict."""
    mlp = {"head_hidden": (48, 24), "head_dropout": dropout} if head == "mlp" else {}
    model = nnx.eval_shape(
        lambda: models.create(
            name, num_classes=10, rngs=nnx.Rngs(0), width=width, stem=stem, head=head, **mlp
        )
    )
    drawn = draw_weights(weights.shapes(model))
    weights.from_torchvision(model, drawn)
    return model, drawn


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


def assert_near(ours, theirs, tolerance, largest=None):
    """All values within `tolerance` times the tensor's largest."""
    largest = abs(theirs).max() if largest is None else largest
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.numerics
@pytest.mark.parametrize("case", make_resnet.CASES, ids="-".join)
def test_activations_and_logits_match_torchvision(golden, case):
    model, drawn = create(*case)
    key = "-".join(case)
    total = sum(values.sum(dtype=np.float64) for values in drawn.values())
    assert total == pytest.approx(golden[f"{key}-drawn"]), "NumPy's random numbers have changed"
    graphdefs, params, stats = functional.split(model)

    @jax.jit
    def apply(params, stats, images):
        model = nnx.merge(graphdefs.eval, params, stats)
        return model(images), model.activations(images)

    logits, stages = apply(params, stats, nhwc(make_resnet.images(case[1])))
    tolerance = TOLERANCE[case[0]]
    assert_near(logits, golden[f"{key}-logits"], tolerance)
    for index, stage in enumerate(stages):
        stage = np.asarray(stage).transpose(0, 3, 1, 2)
        norm, largest = golden[f"{key}-size{index}"]
        assert_near(make_resnet.slice_of(stage), golden[f"{key}-stage{index}"], tolerance, largest)
        assert np.linalg.norm(stage) == pytest.approx(norm, rel=tolerance)
        assert abs(stage).max() == pytest.approx(largest, rel=tolerance)


# Of other depth, ResNet-34 has no other layers than ResNet-18
@pytest.mark.numerics
@pytest.mark.parametrize(
    "case", [case for case in make_resnet.CASES if case[0] != "resnet34"], ids="-".join
)
def test_running_statistics_match_torchvision_after_five_updates(golden, case):
    model, _ = create(*case)
    graphdefs, params, stats = functional.split(model)
    apply = jax.jit(
        lambda p, s, images: functional.apply_train(graphdefs, p, s, images, jax.random.key(0))[1],
    )
    for batch in range(1, 6):
        stats = apply(params, stats, nhwc(make_resnet.images(case[1], batch, size=8)))
    after = nnx.merge(graphdefs.train, params, stats)
    ours = make_resnet.statistics(weights.to_torchvision(after))
    theirs = golden["-".join(case) + "-statistics"]
    assert ours.shape == theirs.shape
    np.testing.assert_array_less(
        abs(ours - theirs).max(axis=1), STATISTICS_TOLERANCE[case[0]] * theirs[:, -1]
    )


@pytest.mark.parametrize(
    ("name", "stem", "num_classes", "count"),
    [
        ("resnet18", "imagenet", 1000, 11_689_512),
        ("resnet34", "imagenet", 1000, 21_797_672),
        ("resnet50", "imagenet", 1000, 25_557_032),
        ("resnet18", "cifar", 100, 11_220_132),
    ],
)
def test_parameter_counts_match_torchvision(name, stem, num_classes, count):
    model = nnx.eval_shape(
        lambda: models.create(name, num_classes=num_classes, rngs=nnx.Rngs(0), stem=stem)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(functional.split(model)[1])) == count


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_initialization_matches_torchvision_or_pytorch_for_replaced_layers(stem):
    model = resnet.ResNet(
        block=resnet.BasicBlock,
        depths=(1, 1, 1, 1),
        num_classes=100,
        width=32,
        stem=stem,
        head="mlp",
        head_hidden=(512, 256),
        head_dropout=(0.5, 0.3, 0.2),
        rngs=nnx.Rngs(0),
        dtype=jnp.float32,
    )
    state = weights.to_torchvision(model)
    for name, values in state.items():
        if name == "conv1.weight" and stem == "cifar":  # Conv2d's default
            expect_uniform(values, 27**-0.5)
        elif values.ndim == 4:  # kaiming_normal_(mode="fan_out", nonlinearity="relu")
            std = (2 / (values.shape[0] * values[0, 0].size)) ** 0.5
            assert abs(values.mean()) < 5 * std / values.size**0.5
            assert abs(values.std() / std - 1) < 5 / (2 * values.size) ** 0.5
            assert abs(values).max() > 3 * std  # not truncated
        elif values.ndim == 2:
            expect_uniform(values, values.shape[1] ** -0.5)
            expect_uniform(state[name.replace("weight", "bias")], values.shape[1] ** -0.5)
        elif f"{name.rpartition('.')[0]}.running_var" in state:
            np.testing.assert_array_equal(values, name.endswith(("weight", "running_var")))


def expect_uniform(values, bound):
    """U(-b, b) has mean 0 and standard deviation b / sqrt(3): within five standard errors."""
    assert abs(values).max() <= bound
    assert abs(values.mean()) < 5 * bound / (3 * values.size) ** 0.5
    assert abs(values.std() / bound - 3**-0.5) < 5 * 0.27 / values.size**0.5


def test_mlp_head_dropout_acts_in_training_only_and_follows_its_key():
    model, _ = create("resnet18", "cifar", "mlp", width=4, dropout=(0.5, 0.3, 0.2))
    graphdefs, *arrays = functional.split(model)
    images = nhwc(make_resnet.images("cifar", size=8))
    apply = jax.jit(lambda *args: functional.apply_train(graphdefs, *args)[0])
    first, again, other = (np.asarray(apply(*arrays, images, jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    kinds = [type(layer).__name__ for layer in model.fc]
    assert kinds == ["BatchNorm", "Dropout", "Linear"] + 2 * [
        "BatchNorm",
        type(nnx.relu).__name__,
        "Dropout",
        "Linear",
    ]
    assert [layer.rate for layer in model.fc if isinstance(layer, nnx.Dropout)] == [0.5, 0.3, 0.2]
    assert first.dtype == jnp.float32
    assert first.shape == (8, 10)
    model.eval()
    assert all(layer.deterministic for layer in model.fc if isinstance(layer, nnx.Dropout))


@pytest.mark.real_data
def test_full_width_resnet18_takes_steps_on_real_images(small_config):
    root = os.environ.get("JAXCIFAR_REAL_DATA")
    if not root:
        pytest.skip("$JAXCIFAR_REAL_DATA names no image folder")
    small_config.data.name = "folder"
    small_config.data.dir = root
    small_config.model.name = "resnet18"
    small_config.model.width = 0
    small_config.optimizer.lr = 0.05
    splits = data.load(small_config)
    batch = splits.train.take(slice(small_config.batch_size))
    program = Program(small_config, parallel.setup(small_config), data.Splits(batch, batch, batch))
    schedule = RunSchedule(small_config, program.steps_per_epoch)
    state, losses = program.init(), []
    for epoch in range(6):  # of one step each
        (call,) = program.train_epoch(state, epoch, schedule.epoch_values(epoch))
        state = call.state
        losses.append(float(call.sums["loss"].sum() / call.sums["count"].sum()))
    assert losses[-1] < losses[0] - 0.5
