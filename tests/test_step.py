import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from jaxcifar import batches, data, losses, models, parallel
from jaxcifar import step as step_lib
from jaxcifar.models import functional, layers
from jaxcifar.program import Program
from jaxcifar.run_schedule import RunSchedule


class NormalizedCNN(nnx.Module):
    """A convolution, BatchNorm and dropout, which compile fast."""

    def __init__(self, num_classes, rngs, dtype):
        self.conv = layers.conv(3, 4, size=3, stride=4, rngs=rngs, dtype=dtype)
        self.bn = layers.BatchNorm(4, dtype=dtype)
        self.dropout = nnx.Dropout(0.3)
        self.fc = layers.linear(256, num_classes, rngs=rngs, dtype=dtype)

    def __call__(self, images, *, rngs=None):
        x = self.dropout(self.bn(self.conv(images), relu=True), rngs=rngs)
        return self.fc(x.reshape(len(x), -1))


@pytest.fixture
def small_config(small_config):
    """A run of that network."""

    @models.model
    def normalized_cnn(*, num_classes, rngs, dtype):
        return NormalizedCNN(num_classes, rngs, dtype)

    small_config.model.name, small_config.model.width = "normalized_cnn", 0
    yield small_config
    del models.MODELS._entries["normalized_cnn"]


def make_program(config, num_devices=None):
    """Returns the program of a config, on the first devices or as many as it names."""
    mesh = parallel.setup(config)
    if num_devices:
        devices = jax.devices()[:num_devices]
        mesh = jax.make_mesh(
            (num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=devices
        )
    return Program(config, mesh, data.load(config))


def train_steps(program, num_steps, state=None):
    """Returns the states after each of the epoch's first calls, at learning rates 0.1, 0.09, ...,
    on the host, and the sum of the losses.
    """
    lrs = np.linspace(0.1, 0.01, program.steps_per_epoch, dtype=np.float32)
    values = {"lr": lrs, "momentum": np.full_like(lrs, 0.9)}
    loss, states = 0.0, []
    for call in program.train_epoch(state or program.init(), 0, values):
        loss += float(call.sums["loss"].sum())
        states.append(jax.tree.map(np.array, call.state))  # which the next call overwrites
        if call.step_in_epoch == num_steps:
            return states, loss
    raise AssertionError("the epoch has fewer steps")


@pytest.mark.numerics
def test_steps_per_call_changes_rounding_only(small_config):
    """Dropout, order and learning rates are the same; float32 rounding is all that differs. Two
    steps, because in a third it could flip a ReLU of this network on another processor.
    """
    (_, one), loss_one = train_steps(make_program(small_config), 2)
    small_config.steps_per_call = 2
    (two,), loss_two = train_steps(make_program(small_config), 2)
    assert int(one.step) == int(two.step) == 2
    assert loss_two == pytest.approx(loss_one, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, two.params)


@pytest.mark.numerics
def test_number_of_devices_changes_rounding_only(small_config):
    """BatchNorm's statistics are the whole batch's, dropout and augmentation are the same. After
    one SGD step the parameters differ by rounding, 1e-7 where measured; a second step would
    multiply it wherever a ReLU flips.
    """
    small_config.batch_size = 13  # no multiple of 3
    small_config.augment = "random_flip"
    small_config.mixup.prob = 0.5
    programs = [make_program(small_config, devices) for devices in (1, 3)]
    start = jax.tree.map(np.asarray, programs[0].init())
    results = []
    for program in programs:
        state = jax.device_put(start, parallel.replicated(program.mesh))
        (state,), _ = train_steps(program, 1, state)
        results.append(state.model)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * max(1, abs(a).max())), *results
    )


@pytest.mark.numerics
def test_ema_matches_its_formula_and_does_not_affect_training(small_config):
    plain, _ = train_steps(make_program(small_config), 3)
    assert plain[-1].ema is None
    assert plain[-1].model["params"] is plain[-1].params
    small_config.ema.decay = 0.9
    averaged = train_steps(make_program(small_config), 3)[0][-1]
    # Another program, so rounding may differ, and a step multiplies it.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), averaged.params, plain[-1].params
    )

    def mean(first, second, third):  # torch's AveragedModel starts from the first step's
        return 0.9 * (0.9 * first + 0.1 * second) + 0.1 * third

    expected = jax.tree.map(mean, *(state.params for state in plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), averaged.ema, expected)
    assert averaged.model["params"] is averaged.ema


def test_label_smoothing_changes_the_loss_but_not_the_accuracy(small_config):
    splits = data.load(small_config)
    program = Program(small_config, parallel.setup(small_config), splits)
    state = program.init()
    images = batches.normalize(splits.train.images[:50], small_config)
    targets = jax.nn.one_hot(splits.train.labels[:50], 100)
    results = []
    for smoothing in (0.0, 0.2):
        small_config.loss.label_smoothing = smoothing
        loss_fn = jax.jit(step_lib.make_loss(program.graphdefs, small_config))
        results.append(loss_fn(state.params, state.stats, images, targets, jax.random.key(0)))
    (plain, (_, plain_sums)), (smoothed, (_, smoothed_sums)) = results
    assert float(plain) != float(smoothed)
    assert float(plain_sums["correct"]) == float(smoothed_sums["correct"])


def test_step_does_not_modify_its_input_state(small_config):
    program = Program(small_config, parallel.setup(small_config), data.load(small_config))
    state = program.init()
    before = dict(state.opt_state.hyperparams)
    step = step_lib.make_train_step(program.graphdefs, program.optimizer, small_config)
    batch = np.zeros((2, 32, 32, 3), np.float32), np.eye(2, 100, dtype=np.float32)

    @jax.jit  # of the rest of the new state nothing is compiled; `state` is no copy
    def new_lr(lr):
        new_state, _ = step(state, (*batch, {"lr": lr}, jax.random.key(0)))
        return new_state.opt_state.hyperparams["lr"]

    assert new_lr(np.float32(0.5)) == 0.5
    assert state.opt_state.hyperparams == before


@pytest.mark.torch
def test_simple_cnn_losses_match_pytorch_for_50_steps(small_config):
    """A narrow SimpleCNN without dropout, SGD with momentum and decay, the learning rate halved
    on the way; the same initial parameters and batches. A loss is a mean over 50 images: where
    measured it stays within 1e-6 for all 50 steps, since this small network flips few ReLUs; 1e-3
    is a hundredth of what the loss falls by.
    """
    torch = pytest.importorskip("torch")
    from jaxcifar.parity import networks, torch_networks

    torch.set_num_threads(1)  # PyTorch's and XLA's threads wait for each other otherwise
    small_config.batch_size = 50
    small_config.model.update(name="simple_cnn", width=4, dropout=0.0)
    small_config.optimizer.lr = 0.03
    small_config.schedule.name, small_config.schedule.interval = "step", "step"
    small_config.schedule.step_size, small_config.schedule.gamma = 20, 0.5
    splits = data.load(small_config)
    part = splits.train.take(slice(450))  # nine steps an epoch
    program = Program(small_config, parallel.setup(small_config), splits._replace(train=part))
    state = program.init()

    start = nnx.merge(program.graphdefs.train, state.params, state.stats)
    model = networks.theirs(networks.Case("simple_cnn", width=4, num_classes=100))
    torch_networks.load(model, networks.to_torch(start))
    settings = small_config.optimizer
    sgd = torch.optim.SGD(
        model.parameters(),
        settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    halving = torch.optim.lr_scheduler.StepLR(sgd, 20, 0.5)

    schedule = RunSchedule(small_config, program.steps_per_epoch)
    ours, theirs = [], []
    for epoch in range(6):
        order = np.asarray(program.epoch_order(epoch)).reshape(-1, 50)
        calls = program.train_epoch(state, epoch, schedule.epoch_values(epoch))
        for rows, call in zip(order, calls, strict=True):
            state = call.state
            ours.append(float(call.sums["loss"].sum()) / 50)
            batch = (part.images[rows] / 255.0 - small_config.data.mean) / small_config.data.std
            batch = torch.tensor(batch.transpose(0, 3, 1, 2), dtype=torch.float32)
            labels = torch.tensor(part.labels[rows]).long()
            loss = torch.nn.functional.cross_entropy(model(batch), labels)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            halving.step()
            theirs.append(loss.item())
    assert min(theirs) < theirs[0] - 0.03  # it learns
    np.testing.assert_allclose(ours[:50], theirs[:50], rtol=0, atol=1e-3)


def test_nonfinite_steps_are_skipped(small_config):
    """They change nothing but the step's number, and count only as skipped."""
    small_config.optimizer.skip_nonfinite = 2
    small_config.ema.decay = 0.9
    program = Program(small_config, parallel.setup(small_config), data.load(small_config))
    values = RunSchedule(small_config, program.steps_per_epoch).epoch_values(0)
    for scale in (1.0, np.inf):
        state = program.init()
        state.params["fc"]["bias"] = state.params["fc"]["bias"] * scale
        before = jax.tree.map(np.asarray, state)
        call = next(program.train_epoch(state, 0, values))
        is_skipped = scale == np.inf
        assert int(call.state.step) == 1
        assert call.sums["skipped_steps"].tolist() == [float(is_skipped)]
        assert call.sums["count"].tolist() == [0.0 if is_skipped else 48.0]
        assert np.isfinite(call.sums["loss"]).all()
        assert bool(np.isfinite(call.sums["grad_norm"])[0]) != is_skipped
        unchanged = jax.tree.map(
            np.array_equal, call.state._replace(step=0), before._replace(step=0)
        )
        assert all(jax.tree.leaves(unchanged)) == is_skipped


def test_snapshot_is_a_copy_and_knows_whether_it_is_finite(small_config):
    program = Program(small_config, parallel.setup(small_config), data.load(small_config))
    state = program.init()
    copy, is_finite = program.snapshot(state)
    assert is_finite
    values = RunSchedule(small_config, program.steps_per_epoch).epoch_values(0)
    before = np.asarray(copy.params["fc"]["kernel"]).copy()
    state = next(program.train_epoch(state, 0, values)).state  # donates the original
    np.testing.assert_array_equal(copy.params["fc"]["kernel"], before)
    state.params["fc"]["bias"] = state.params["fc"]["bias"].at[3].set(np.nan)
    assert not program.snapshot(state)[1]


def test_consistency_adds_the_divergence_of_the_views(small_config):
    small_config.augment, small_config.loss.consistency = "augmix", 3.0
    program = Program(small_config, parallel.setup(small_config), data.load(small_config))
    state = program.init()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 32, 32, 3)).astype(np.float32)
    targets = np.eye(100, dtype=np.float32)[:4]
    loss_fn = step_lib.make_loss(program.graphdefs, small_config)
    arguments = state.params, state.stats, images, targets, jax.random.key(0)
    (loss, (_, sums)), (logits, _) = jax.jit(
        lambda params, stats, images, targets, key: (
            loss_fn(params, stats, images, targets, key),
            functional.apply_train(program.graphdefs, params, stats, images, key),
        )
    )(*arguments)
    expected = losses.cross_entropy(logits[:4], targets) + 3 * losses.jensen_shannon(
        np.split(np.asarray(logits), 3)
    )
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert sums["count"] == 4
