import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxcifar import batches, data, hyperparameters, optimizers, parallel, step
from jaxcifar.rng import Stream, stream


def train_steps(config, steps_per_call, num_steps=4, devices=None):
    """Returns the state after some steps, and the sums of their metrics."""
    mesh = parallel.setup(config)
    if devices:
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
    part = data.load(config).train
    optimizer = optimizers.create(config)
    network, state = step.init_state(config, optimizer, 100, mesh)
    call = step.make_train_call(network, optimizer, config, 100, mesh)
    images, labels = jax.device_put((part.images, part.labels), parallel.replicated(mesh))
    order = jax.random.permutation(stream(0, Stream.SHUFFLE), len(part))
    lrs = np.linspace(0.1, 0.01, 10, dtype=np.float32)
    table = {"lr": lrs, "momentum": np.full(10, 0.9, np.float32)}
    loss = 0.0
    for index in range(0, num_steps, steps_per_call):
        state, sums = call(
            state,
            images,
            labels,
            order,
            table,
            stream(config.seed, Stream.STEP),
            index,
            steps=steps_per_call,
            batch_size=config.batch_size,
        )
        loss += float(sums["loss"])
    return state, loss


def test_steps_per_call_changes_rounding_only(small_config):
    """Dropout, order and learning rates are the same; float32 rounding is all that differs."""
    (one, loss_one), (four, loss_four) = (train_steps(small_config, n) for n in (1, 4))
    assert int(one.step) == int(four.step) == 4
    assert loss_one == pytest.approx(loss_four, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, four.params)


@pytest.mark.parametrize("batch_size", [48, 13])
def test_the_number_of_devices_changes_rounding_only(small_config, batch_size):
    """BatchNorm's statistics are the whole batch's, dropout and augmentation are the same. SGD on
    a narrow ResNet for 2 steps: rounding has not grown yet.
    """
    small_config.batch_size = batch_size
    small_config.model.name = "resnet18"
    small_config.model.head = "mlp"
    small_config.augment = "random_crop(32, padding=4) | random_flip"
    small_config.mixup.prob = 0.5
    states = [train_steps(small_config, 1, 2, devices)[0] for devices in (1, 2, 8)]
    for other in states[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * max(1, abs(a).max())),
            states[0].model,
            other.model,
        )


def test_the_average_follows_its_formula_and_leaves_training_alone(small_config):
    plain = [train_steps(small_config, 1, n)[0] for n in (1, 2, 3)]
    assert plain[-1].ema is None
    assert plain[-1].model["params"] is plain[-1].params
    small_config.ema.decay = 0.9
    averaged, _ = train_steps(small_config, 1, 3)
    jax.tree.map(np.testing.assert_array_equal, averaged.params, plain[-1].params)

    def mean(first, second, third):  # torch's AveragedModel starts from the first step's
        return 0.9 * (0.9 * first + 0.1 * second) + 0.1 * third

    expected = jax.tree.map(mean, *(state.params for state in plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), averaged.ema, expected)
    assert averaged.model["params"] is averaged.ema


def test_label_smoothing_changes_the_loss_and_not_the_accuracy(small_config):
    mesh = parallel.setup(small_config)
    part = data.load(small_config).train
    network, state = step.init_state(small_config, optimizers.create(small_config), 100, mesh)
    key = stream(0, Stream.STEP)
    found = []
    for smoothing in (0.0, 0.2):
        small_config.loss.label_smoothing = smoothing
        loss_fn = jax.jit(step.make_loss(network, small_config))
        images = batches.normalise(part.images[:50], small_config)
        batch = images, jax.nn.one_hot(part.labels[:50], 100)
        found.append(loss_fn(state.params, state.stats, *batch, key))
    assert float(found[0][0]) != float(found[1][0])
    assert float(found[0][1][1]["correct"]) == float(found[1][1][1]["correct"])


@pytest.mark.torch
def test_simple_cnn_follows_pytorchs_losses_for_50_steps(small_config):
    """A narrow SimpleCNN without dropout, SGD with momentum and decay, the learning rate halved
    on the way; the same initial parameters and batches.
    """
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.set_num_threads(1)  # PyTorch's and XLA's threads wait for each other otherwise
    small_config.model.dropout = 0.0
    small_config.optimizer.lr = 0.03
    small_config.schedule.name, small_config.schedule.interval = "step", "step"
    small_config.schedule.step_size, small_config.schedule.gamma = 20, 0.5
    mesh = parallel.setup(small_config)
    part = data.load(small_config).train
    optimizer = optimizers.create(small_config)
    network, state = step.init_state(small_config, optimizer, 100, mesh)

    class HeightWidthChannels(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)  # our order of fc1's inputs

    convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 4), (4, 8), (8, 16))]
    linears = [nn.Linear(256, 64), nn.Linear(64, 100)]
    layers = [x for conv in convolutions for x in (conv, nn.ReLU(), nn.MaxPool2d(2))]
    model = nn.Sequential(*layers, HeightWidthChannels(), linears[0], nn.ReLU(), linears[1])
    names = ("conv1", "conv2", "conv3", "fc1", "fc2")
    with torch.no_grad():
        for name, layer in zip(names, (*convolutions, *linears), strict=True):
            kernel, bias = (np.asarray(state.params[name][x]) for x in ("kernel", "bias"))
            kernel = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
            layer.weight.copy_(torch.tensor(kernel))
            layer.bias.copy_(torch.tensor(bias))
    given = small_config.optimizer
    sgd = torch.optim.SGD(
        model.parameters(), given.lr, momentum=given.momentum, weight_decay=given.weight_decay
    )
    halving = torch.optim.lr_scheduler.StepLR(sgd, 20, 0.5)

    call = step.make_train_call(network, optimizer, small_config, 100, mesh)
    images, labels = jax.device_put((part.images, part.labels), parallel.replicated(mesh))
    schedule = hyperparameters.create(small_config, 50)
    table = hyperparameters.tabulate(small_config, schedule, 0, 50)
    order, key = np.arange(2500) % len(part), stream(0, Stream.STEP)
    ours, theirs = [], []
    for i in range(50):
        state, sums = call(state, images, labels, order, table, key, i, steps=1, batch_size=50)
        ours.append(float(sums["loss"]) / 50)
        rows = order[50 * i : 50 * i + 50]
        batch = (part.images[rows] / 255.0 - small_config.data.mean) / small_config.data.std
        batch = torch.tensor(batch.transpose(0, 3, 1, 2), dtype=torch.float32)
        loss = nn.functional.cross_entropy(model(batch), torch.tensor(part.labels[rows]).long())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        halving.step()
        theirs.append(loss.item())
    assert min(theirs) < theirs[0] - 0.03  # it learns
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_gradients_by_layer(small_config):
    mesh = parallel.setup(small_config)
    part = data.load(small_config).train
    network, state = step.init_state(small_config, optimizers.create(small_config), 100, mesh)
    found = step.make_gradients(network, small_config, 100)(state, part.images, part.labels)
    assert found["conv1.kernel"].shape == (3, 3, 3, 4)
    assert abs(found["fc2.bias"]).max() > 0
