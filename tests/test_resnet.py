import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden import make_resnet

from jaxcifar import models, weights

TOLERANCE = {"resnet18": 1e-5, "resnet34": 1e-4, "resnet50": 1e-4}
STATISTICS_TOLERANCE = {"resnet18": 1e-4, "resnet34": 1e-4, "resnet50": 1e-3}


@pytest.fixture(scope="module")
def golden():
    return np.load(make_resnet.PATH)


def create(name, stem, head, *, width=None, dtype=jnp.float32):
    """Our network of the golden files' sizes, without dropout, and the weights drawn for it."""
    model = models.create(
        name,
        num_classes=make_resnet.NUM_CLASSES,
        rngs=nnx.Rngs(0),
        width=width,
        stem=stem,
        head=head,
        head_hidden=make_resnet.MLP_HIDDEN,
        head_dropout=(0.0, 0.0, 0.0),
        dtype=dtype,
    )
    state = weights.to_torchvision(model)
    drawn = make_resnet.draw_weights({name: value.shape for name, value in state.items()})
    weights.from_torchvision(model, drawn)
    return model, drawn


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


def assert_near(ours, theirs, tolerance, largest=None):
    """All values within `tolerance` times the tensor's largest."""
    largest = abs(theirs).max() if largest is None else largest
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", make_resnet.CASES, ids="-".join)
def test_activations_and_logits_are_torchvisions(golden, case):
    model, drawn = create(*case)
    key = "-".join(case)
    total = sum(values.sum(dtype=np.float64) for values in drawn.values())
    assert total == pytest.approx(golden[f"{key}-drawn"]), "NumPy draws other weights than it did"
    network, params, stats = models.split(model)

    @jax.jit
    def apply(params, stats, images):
        model = nnx.merge(network.eval, params, stats)
        return model(images), model.activations(images)

    logits, stages = apply(params, stats, nhwc(make_resnet.images(case[1])))
    tolerance = TOLERANCE[case[0]]
    assert_near(logits, golden[f"{key}-logits"], tolerance)
    for number, stage in enumerate(stages):
        stage = np.asarray(stage).transpose(0, 3, 1, 2)
        norm, largest = golden[f"{key}-size{number}"]
        assert_near(make_resnet.slice_of(stage), golden[f"{key}-stage{number}"], tolerance, largest)
        assert np.linalg.norm(stage) == pytest.approx(norm, rel=tolerance)
        assert abs(stage).max() == pytest.approx(largest, rel=tolerance)


@pytest.mark.parametrize("case", make_resnet.CASES, ids="-".join)
def test_running_statistics_are_torchvisions_after_five_updates(golden, case):
    model, _ = create(*case)
    network, params, stats = models.split(model)
    apply = jax.jit(
        lambda p, s, images: models.apply_train(network, p, s, images, jax.random.key(0))[1]
    )
    for batch in range(1, 6):
        stats = apply(params, stats, nhwc(make_resnet.images(case[1], batch, size=8)))
    after = nnx.merge(network.train, params, stats)
    ours = make_resnet.statistics(weights.to_torchvision(after))
    theirs = golden["-".join(case) + "-statistics"]
    assert ours.shape == theirs.shape
    np.testing.assert_array_less(
        abs(ours - theirs).max(axis=1), STATISTICS_TOLERANCE[case[0]] * theirs[:, -1]
    )
