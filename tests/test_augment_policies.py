import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from augment_reference import SIGNIFICANCE, TOLERANCE, golden, images, same_pixels, tables

from jaxcifar import augment
from jaxcifar.augment import policies
from jaxcifar.spec import ConfigError

OP_INDEX = policies.OP_INDEX
BLENDS = ("Brightness", "Contrast", "Color", "Sharpness")
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SIGNED = (*GEOMETRIC, *BLENDS)
COUNT, SHAPE = 6000, (4, 6)  # number of draws; shape of the images that record them
_DRAWS = {}


@pytest.fixture
def recorded(monkeypatch):
    """Returns a function that draws from a policy many times and returns what it would apply:
    operations int [COUNT, N] and levels float [COUNT, N], in order.
    """

    def record(planes, op, level, interpolation="nearest"):
        return jnp.roll(planes, 1, axis=2).at[:2, 0, 0].set(jnp.stack([op, level]))

    def draws(policy, num_ops, *arguments):
        if (policy, arguments) in _DRAWS:
            return _DRAWS[policy, arguments]
        monkeypatch.setattr(policies, "apply_op", record)
        keys = jax.random.split(jax.random.key(0), COUNT)
        records = jax.jit(jax.vmap(lambda key: policy(key, jnp.zeros((*SHAPE, 3)), *arguments)))(
            keys
        )
        ops_and_levels = np.asarray(records)[:, 0, :num_ops, :2][:, ::-1]
        _DRAWS[policy, arguments] = ops_and_levels[..., 0].astype(int), ops_and_levels[..., 1]
        return _DRAWS[policy, arguments]

    return draws


def frequencies_fit(values, probabilities):
    """Returns whether integers have these probabilities (chi-square test)."""
    counts = np.bincount(values.ravel(), minlength=len(probabilities))
    possible = np.asarray(probabilities) > 0
    assert not counts[~possible].any()
    expected = np.asarray(probabilities)[possible] * values.size
    return scipy.stats.chisquare(counts[possible], expected).pvalue > SIGNIFICANCE


def uniform_over(names):
    return np.isin(np.arange(len(OP_INDEX)), [OP_INDEX[name] for name in names]) / len(names)


@pytest.mark.numerics
def test_operations_match_torchvision():
    applied = tables()["applied"]
    ops = np.array([OP_INDEX[name] for name, _, _ in applied])
    levels = np.array([level for _, level, _ in applied], np.float32)
    planes = jnp.moveaxis(images("oblong")[0], -1, 0)
    ours = {
        interpolation: jax.jit(
            jax.vmap(lambda op, level, i=interpolation: policies.apply_op(planes, op, level, i))
        )(ops, levels)
        for interpolation in ("nearest", "bilinear")
    }
    names = {name: f"adjust_{name.lower()}" for name in BLENDS} | {"Color": "adjust_saturation"}
    for index, (name, level, interpolation) in enumerate(applied):
        result = 255 * np.moveaxis(np.asarray(ours[interpolation][index]), 0, -1)
        theirs = golden()["applied"][index, 0]
        if name in GEOMETRIC and interpolation == "nearest":
            assert same_pixels(result[None], theirs[None]) >= 0.995, (name, level)  # as geometry's
        else:
            tolerance = TOLERANCE.get(names.get(name, name.lower()), 1)
            assert np.abs(result - theirs).max() <= tolerance, (name, level, interpolation)


@pytest.mark.parametrize(
    ("space", "bins"), [("standard", 31), ("standard", 10), ("wide", 31), ("augmix", 10)]
)
def test_magnitudes_match_torchvision(space, bins):
    ours = policies.magnitudes(space, bins, 20, 28)
    theirs = tables()[f"magnitudes {space} {bins}"]
    for name, signed, levels in theirs:
        assert signed == (name in SIGNED)
        np.testing.assert_array_equal(ours[OP_INDEX[name]], np.float32(levels or 0), err_msg=name)


def test_sampled_operations_match_torchvision():
    theirs = tables()["operations"]
    for ours, names in ((policies.WIDE_OPS, "wide"), (policies.AUGMIX_OPS, "augmix")):
        assert sorted(policies.OPS[op] for op in ours) == sorted(theirs[names])


@pytest.mark.parametrize("policy", ["cifar10", "svhn", "imagenet"])
def test_policies_match_torchvision(policy):
    ops, probabilities, bins = policies.policy_table(policy)
    theirs = tables()[f"policy {policy}"]
    assert len(theirs) == len(ops) == 25
    for row, pair in enumerate(theirs):
        for column, (name, probability, index) in enumerate(pair):
            assert policies.OPS[ops[row, column]] == name
            assert probabilities[row, column] == np.float32(probability)
            assert bins[row, column] == (index or 0)


def test_randaugment_sampling_matches_torchvision(recorded):
    ops, levels = recorded(augment.randaugment, 2, 2, 7)
    table = policies.magnitudes("standard", 31, *SHAPE)[:, 7]
    np.testing.assert_array_equal(np.abs(levels), table[ops])
    wide = [name for name in OP_INDEX if name != "Invert"]
    assert frequencies_fit(ops, uniform_over(wide))
    assert frequencies_fit(ops[:, 0] * 15 + ops[:, 1], np.outer(*[uniform_over(wide)] * 2).ravel())
    signed = np.isin(ops, [OP_INDEX[name] for name in SIGNED])
    assert np.all(levels[~signed] >= 0)
    assert (
        scipy.stats.binomtest(int((levels[signed] < 0).sum()), int(signed.sum())).pvalue
        > SIGNIFICANCE
    )


def test_trivial_augment_sampling_matches_torchvision(recorded):
    ops, levels = recorded(augment.trivial_augment, 1)
    assert frequencies_fit(ops, uniform_over([name for name in OP_INDEX if name != "Invert"]))
    table = policies.magnitudes("wide", 31, *SHAPE)
    signed = levels[np.isin(ops, [OP_INDEX[name] for name in BLENDS])]
    bins = np.round(np.abs(signed) / 0.99 * 30).astype(int)
    assert frequencies_fit(bins, np.full(31, 1 / 31))
    assert (
        scipy.stats.binomtest(int((signed < 0).sum()), int((signed != 0).sum())).pvalue
        > SIGNIFICANCE
    )
    for name in ("Posterize", "Solarize", "Rotate"):
        magnitudes = np.abs(levels[ops == OP_INDEX[name]])
        assert set(magnitudes) == set(table[OP_INDEX[name]])


def test_autoaugment_sampling_matches_torchvision(recorded):
    policy = "imagenet"
    ops, levels = recorded(augment.autoaugment, 2, policy)
    pairs = np.zeros((len(OP_INDEX), len(OP_INDEX)))
    for (first, p, _), (second, q, _) in tables()[f"policy {policy}"]:
        for one, chance in ((OP_INDEX[first], p), (OP_INDEX["Identity"], 1 - p)):
            for other, other_chance in ((OP_INDEX[second], q), (OP_INDEX["Identity"], 1 - q)):
                pairs[one, other] += chance * other_chance / 25
    pairs[pairs < 1e-12] = 0
    pair_indices = ops[:, 0] * len(OP_INDEX) + ops[:, 1]
    rare = pairs.ravel() * COUNT < 5  # too few to count: lumped into one class
    lumped = np.append(np.where(rare, 0, pairs.ravel()), pairs.ravel()[rare].sum())
    assert frequencies_fit(np.where(rare[pair_indices], len(OP_INDEX) ** 2, pair_indices), lumped)
    rotated = levels[ops == OP_INDEX["Rotate"]]
    assert scipy.stats.binomtest(int((rotated < 0).sum()), rotated.size).pvalue > SIGNIFICANCE


def test_augmix_sampling_matches_torchvision(monkeypatch):
    """The last chain has all the weight; its operations are recorded."""

    def record(planes, op, level, interpolation):
        assert interpolation == "bilinear"
        return jnp.roll(planes, 1, axis=2).at[:2, 0, 0].set(jnp.stack([op, level]))

    monkeypatch.setattr(policies, "apply_op", record)
    keys = jax.random.split(jax.random.key(0), COUNT)
    monkeypatch.setattr(
        jax.random, "dirichlet", lambda key, alpha: jnp.eye(len(alpha))[len(alpha) - 1]
    )
    records = jax.jit(jax.vmap(lambda key: augment.augmix(key, jnp.zeros((*SHAPE, 3)), 4, 2)))(keys)
    ops = np.asarray(records)[:, 0, :3, 0][:, ::-1].astype(int)
    levels = np.asarray(records)[:, 0, :3, 1][:, ::-1]
    names = [name for name in OP_INDEX if name not in ("Identity", "Invert")]
    lengths = (ops != OP_INDEX["Identity"]).sum(1)
    assert np.all((ops != OP_INDEX["Identity"]) == (np.arange(3) < lengths[:, None]))
    assert frequencies_fit(lengths, [0, 1 / 3, 1 / 3, 1 / 3])
    assert frequencies_fit(ops[ops != OP_INDEX["Identity"]], uniform_over(names))
    rotations = np.abs(levels[ops == OP_INDEX["Rotate"]])
    assert frequencies_fit(np.round(rotations / 30 * 9).astype(int), np.full(4, 1 / 4))


def test_augmix_weights_are_dirichlet_samples_of_alpha(monkeypatch):
    """With known weights, and operations that return their index, a result can be decoded."""
    alphas = []
    weights = {2: np.array([0.25, 0.75]), 3: np.array([1, 16, 256]) / 273}

    def dirichlet(key, alpha):
        alphas.append(alpha)
        return jnp.asarray(weights[len(alpha)], jnp.float32)

    def to_index(planes, op, level, interpolation):
        return jnp.full_like(planes, op)

    monkeypatch.setattr(jax.random, "dirichlet", dirichlet)
    monkeypatch.setattr(policies, "apply_op", to_index)
    image, chains = jnp.full((1, 1, 3), 0.5), []
    for seed in range(3):
        mixed = augment.augmix(jax.random.key(seed), image, width=3, depth=1, alpha=0.7)
        code = (float(mixed[0, 0, 0]) - 0.25 * 0.5) / 0.75 * 273
        assert code == pytest.approx(round(code), abs=0.01)  # float32's rounding of up to 273 · 15
        chains.append([round(code) // 16**chain % 16 for chain in range(3)])
    for alpha, count in zip(alphas, (2, 3) * 3, strict=True):
        np.testing.assert_allclose(alpha, [0.7] * count, rtol=1e-6)
    assert {op for ops in chains for op in ops} <= set(policies.AUGMIX_OPS.tolist())
    assert any(len(set(ops)) > 1 for ops in chains)  # every chain draws independently


def test_operation_and_magnitude_vary_within_a_batch(recorded):
    ops, levels = recorded(augment.trivial_augment, 1)
    assert len(set(ops[:64].ravel())) > 8
    assert len(set(levels[:64][ops[:64] == OP_INDEX["Rotate"]])) > 1
    assert len(set(levels.ravel())) > 200


def test_outputs_are_valid_images_and_vary_within_a_batch():
    image = images("oblong")[0]
    keys = jax.random.split(jax.random.key(3), 12)
    outputs = np.asarray(jax.jit(jax.vmap(lambda key: augment.randaugment(key, image, 2, 7)))(keys))
    assert outputs.shape == (12, *image.shape)
    assert outputs.min() >= 0
    assert outputs.max() <= 1
    assert len({result.tobytes() for result in outputs}) > 9


def test_invalid_python_values_raise():
    with pytest.raises(ConfigError, match="magnitude=99 must be less than"):
        augment.randaugment(jax.random.key(0), jnp.zeros((8, 8, 3)), 2, 99)
    with pytest.raises(ConfigError, match="policy='mnist' is not valid: it must be one of"):
        augment.autoaugment(jax.random.key(0), jnp.zeros((8, 8, 3)), policy="mnist")
