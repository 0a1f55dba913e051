"""A user's config file, outside the package, with its own transform, schedule, model and optimizer:
they are used by name, with the same checks, checkpoints and resuming as the built-in ones.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxcifar import config as config_lib
from jaxcifar.spec import ConfigError

MINE = '''
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxcifar import augment, config as config_lib, models, optimizers, schedules
from jaxcifar.spec import NonNegativeFloat, PositiveFloat, PositiveInt


@augment.transform
def add_noise(key: jax.Array, image: jax.Array, std: NonNegativeFloat = 0.1) -> jax.Array:
    """Adds Gaussian noise."""
    return jnp.clip(image + std * jax.random.normal(key, image.shape), 0, 1)


@schedules.schedule("inverse_sqrt")
def inverse_sqrt_lr(lr: PositiveFloat, *, time_scale: PositiveInt = 10):
    """Returns lr / sqrt(1 + step / time_scale).

    Args:
        time_scale: intervals until the learning rate has fallen by a factor of sqrt(2).
    """
    return lambda step: lr / (1 + step / time_scale) ** 0.5


@optimizers.optimizer(momentum="b1")
def sign_sgd(lr, *, b1: NonNegativeFloat = 0.9, weight_decay: NonNegativeFloat = 0.0):
    """Returns signSGD.

    Args:
        b1: decay of the gradient's moving average.
        weight_decay: decoupled weight decay.
    """
    return optax.chain(
        optax.ema(b1, debias=False),
        optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


class MLP(nnx.Module):
    def __init__(self, num_classes, hidden, rngs, dtype):
        self.fc1 = nnx.Linear(3072, hidden, rngs=rngs, dtype=dtype)
        self.fc2 = nnx.Linear(hidden, num_classes, rngs=rngs, dtype=dtype)

    def __call__(self, images, *, rngs=None):
        return self.fc2(nnx.relu(self.fc1(images.reshape(len(images), -1))))


@models.model
def mlp(*, num_classes, rngs, dtype, hidden: PositiveInt = 64):
    """Returns a network of two linear layers.

    Args:
        hidden: size of the hidden layer.
    """
    return MLP(num_classes, hidden, rngs, dtype)


def get_config():
    config = config_lib.default()
    config.data.name = "synthetic100"
    config.data.synthetic_size = 600
    config.batch_size = 50
    config.num_epochs = 2
    config.augment = "random_flip | add_noise(std=0.05)"
    config.model.name = "mlp"
    config.model.hidden = 16
    config.optimizer.name = "sign_sgd"
    config.optimizer.lr = 1e-3
    config.schedule.name = "inverse_sqrt"
    config.schedule.time_scale = 2
    return config
'''


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def loaded(config_file):
    """The config that the file loads; what the file registers is unregistered afterwards."""
    from jaxcifar import augment, models, optimizers, schedules

    all_entries = [
        registry._entries
        for registry in (
            augment.TRANSFORMS,
            models.MODELS,
            optimizers.OPTIMIZERS,
            schedules.SCHEDULES,
        )
    ]
    before = [dict(entries) for entries in all_entries]
    yield config_lib.load(str(config_file))
    for entries, old in zip(all_entries, before, strict=True):
        entries.clear()
        entries.update(old)


def test_trains_resumes_and_loads(call_main, loaded, config_file, tmp_path):
    run = tmp_path / "run"
    flags = (f"--config={config_file}", f"--workdir={run}", "--config.schedule.time_scale=3")
    code, _, err = call_main(*flags, "--config.num_epochs=1")
    assert code == 0, err
    config_file.write_text(MINE + "# changed\n")
    code, out, err = call_main(*flags)
    assert code == 0, err
    assert "mine.py has changed since the run last started" in out
    assert "resuming in epoch 2" in out
    lrs = [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lrs == pytest.approx([1e-3 / (1 + n / 3) ** 0.5 for n in (1, 2)])
    stored = json.loads((run / "config.json").read_text())
    assert stored["config_file"] == str(config_file)
    assert stored["model"]["hidden"] == 16

    # Another process knows nothing of it, and runs nothing in the work directory.
    score = (
        "import sys, numpy as np\n"
        "from jaxcifar import checkpoint, spec\n"
        "try:\n"
        "    checkpoint.load_model(sys.argv[1])\n"
        "except spec.ConfigError as error:\n"
        "    print(error)\n"
        "model, _ = checkpoint.load_model(sys.argv[1], config_file=sys.argv[2])\n"
        "print(model(np.zeros((2, 32, 32, 3), np.float32)).shape)\n"
    )
    command = [sys.executable, "-c", score, str(run), str(config_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused, *_, shape = done.stdout.splitlines()
    assert "mine.py' registers it" in refused
    assert shape == "(2, 100)"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.schedule.time_scale=0", "schedule.time_scale=0 is not valid: it must be an int"),
        ("--config.model.hidden=x", "model.hidden='x' is not valid"),
        ("--config.model.stem=imagenet", "has no effect with model.name='mlp'"),
        ("--config.model.pretrained=runs/mine", "register the model with head="),
        ("--config.augment=add_noise(-1)", "a number, 0 or more"),
        ("--config.optimizer.nesterov=maybe", "true or false"),
    ],
)
def test_invalid_settings_raise(call_main, loaded, config_file, tmp_path, flag, message):
    code, _, err = call_main(f"--config={config_file}", flag, f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_keys_are_in_the_help(loaded):
    text = config_lib.describe(loaded)
    assert "--config.model.hidden=16\n      mlp: size of the hidden layer [an integer" in text
    assert "inverse_sqrt: intervals until the learning rate has fallen by" in text


def test_reloading_replaces_entries_but_another_file_raises(loaded, config_file, tmp_path):
    config_file.write_text(MINE.replace("hidden: PositiveInt = 64", "hidden: PositiveInt = 32"))
    config_lib.load(str(config_file))
    other = tmp_path / "other.py"
    other.write_text(MINE)
    with pytest.raises(ConfigError, match=r"other.py, line \d+: there is a transform 'add_noise'"):
        config_lib.load(str(other))
    other.write_text(MINE.replace("add_noise", "hflip"))
    with pytest.raises(ConfigError, match=r"there is a transform 'hflip' already, in .*geometry"):
        config_lib.load(str(other))


def test_model_can_be_created(loaded):
    from flax import nnx

    from jaxcifar import models

    model = models.create("mlp", num_classes=7, rngs=nnx.Rngs(0), hidden=3)
    assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 7)
    with pytest.raises(ConfigError, match="hidden=0"):
        models.create("mlp", num_classes=7, rngs=nnx.Rngs(0), hidden=0)


def test_changed_config_of_a_run_raises(loaded, tmp_path, add_checkpoint):
    from jaxcifar.run import Run

    with Run.claim(loaded, tmp_path / "run") as run:
        add_checkpoint(run, 1)
    loaded.model.hidden = 8
    with pytest.raises(ConfigError, match=r"model\.hidden: the run has 16, you asked for 8"):
        Run.claim(loaded, tmp_path / "run")


def test_model_with_a_head_starts_from_a_run(loaded, config_file, tmp_path, add_checkpoint):
    import jax.numpy as jnp
    from flax import nnx

    from jaxcifar import models, pretrained
    from jaxcifar.models import functional
    from jaxcifar.run import Run
    from jaxcifar.step import TrainState

    config_file.write_text(MINE.replace("@models.model\n", '@models.model(head="fc2")\n'))
    config = config_lib.load(str(config_file))
    model = models.from_config(config, num_classes=2, rngs=nnx.Rngs(0))
    _, params, stats = functional.split(model)
    with Run.claim(config, tmp_path / "run") as run:
        add_checkpoint(run, 1, TrainState(jnp.int32(0), params, stats, ()))
    config.model.pretrained = str(run.directory)
    config_lib.validate(config)
    assert set(pretrained.load(config, ("a", "b"))) == set(functional.flatten(params))
    assert set(pretrained.load(config, ("b", "c"))) == {"fc1.kernel", "fc1.bias"}
