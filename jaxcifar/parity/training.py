"""Rows of training: the study's recipes for ten steps, from the same weights and batches."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import optimizers
from jaxcifar import step as step_lib
from jaxcifar.models import functional
from jaxcifar.parity import networks
from jaxcifar.parity.given import jit
from jaxcifar.parity.networks import Case
from jaxcifar.parity.rows import row
from jaxcifar.parity.torch_networks import channels_first
from jaxcifar.run_schedule import RunSchedule

GROUP = "Training"
STEPS, BATCH_SIZE = 10, 8


class Recipe(NamedTuple):
    """A recipe in PyTorch's words. Its schedule moves at every step."""

    case: Case
    optimizer: str
    settings: dict[str, Any]
    schedule: str
    schedule_settings: dict[str, Any]
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    is_mixed: bool = False  # every target is a mixture of two labels

    @property
    def config(self) -> ConfigDict:
        """Our config of it; an epoch is one step."""
        config = config_lib.default()
        config.num_epochs = STEPS
        config.optimizer.name, config.schedule.name = self.optimizer.lower(), _NAMES[self.schedule]
        for key, value in self.settings.items():
            config.optimizer[key] = value
        for key, value in self.schedule_settings.items():
            if key != "total_steps":  # the run's
                config.schedule[key] = value
        config.optimizer.clip_norm = self.clip_norm
        config.loss.label_smoothing = self.label_smoothing
        config.ema.decay = self.ema
        config_lib.validate(config)
        return config

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the batches: images [B, 32, 32, 3], targets [B, C]."""
        rng = np.random.default_rng(2)
        for _ in range(STEPS):
            images = rng.normal(size=(BATCH_SIZE, 32, 32, 3))
            targets = np.eye(self.case.num_classes)[rng.integers(0, 10, BATCH_SIZE)]
            if self.is_mixed:
                targets = 0.3 * targets + 0.7 * targets[::-1]
            yield images.astype(self.case.dtype), targets.astype(self.case.dtype)


_NAMES = {"StepLR": "step", "CosineAnnealingLR": "cosine", "OneCycleLR": "onecycle"}


class Outcome(NamedTuple):
    """What training leads to, by name in PyTorch's layouts."""

    first: dict[str, np.ndarray]  # the loss of the first step, and the parameters after it
    last: dict[str, np.ndarray]  # the losses of all steps; parameters and statistics after them


@functools.cache
def outcomes(title: str) -> tuple[Outcome, Outcome]:
    """Returns what a recipe leads to in ours and in PyTorch."""
    recipe = RECIPES[title]
    model, net = networks.with_weights(recipe.case)
    return _our_outcome(recipe, model), _their_outcome(recipe, net)


def _our_outcome(recipe: Recipe, model: nnx.Module) -> Outcome:
    config, dtype = recipe.config, np.dtype(recipe.case.dtype).type
    graphdefs, params, stats = functional.split(model)
    optimizer, schedule = optimizers.create(config), RunSchedule(config, steps_per_epoch=1)
    state = step_lib.init_state(params, stats, optimizer, config)
    train_step = jit(step_lib.make_train_step(graphdefs, optimizer, config))

    def tensors(params) -> dict[str, np.ndarray]:
        return networks.to_torch(nnx.merge(graphdefs.train, params, state.stats))

    losses = []
    for index, (images, targets) in enumerate(recipe.batches()):
        values = {name: dtype(value) for name, value in schedule.values(index, index).items()}
        state, sums = train_step(state, (images, targets, values, jax.random.key(index)))
        losses.append(np.asarray(sums["loss"]) / BATCH_SIZE)
        if index == 0:
            first = tensors(state.params)
    last = tensors(state.params)
    if recipe.ema:
        last |= {f"average of {name}": value for name, value in tensors(state.ema).items()}
    return Outcome({"loss": losses[0]} | first, {"losses": np.array(losses)} | last)


def _their_outcome(recipe: Recipe, net: torch.nn.Module) -> Outcome:
    optimizer = getattr(torch.optim, recipe.optimizer)(net.parameters(), **recipe.settings)
    scheduler = getattr(torch.optim.lr_scheduler, recipe.schedule)(
        optimizer, **recipe.schedule_settings
    )
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )

    def tensors(net) -> dict[str, np.ndarray]:
        state = net.state_dict()
        return {
            name: tensor.numpy().copy()
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        }

    losses = []
    for index, (images, targets) in enumerate(recipe.batches()):
        loss = torch.nn.functional.cross_entropy(
            net.train()(channels_first(images)),
            torch.from_numpy(targets),
            label_smoothing=recipe.label_smoothing,
        )
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        scheduler.step()
        average.update_parameters(net)
        losses.append(loss.item())
        if index == 0:
            first = tensors(net)
    last = tensors(net)
    if recipe.ema:
        last |= {f"average of {name}": value for name, value in tensors(average.module).items()}
    return Outcome({"loss": losses[0]} | first, {"losses": np.array(losses)} | last)


_SGD = {"momentum": 0.9, "weight_decay": 5e-4}
_STEP_LR = ("StepLR", {"step_size": 4, "gamma": 0.5})
_ONE_CYCLE = {"max_lr": 5e-3, "total_steps": STEPS, "pct_start": 0.3, "div_factor": 10.0}
RECIPES = {
    "Part 1 (SimpleCNN; SGD, StepLR)": Recipe(
        Case("simple_cnn", width=32), "SGD", {"lr": 0.01, **_SGD}, *_STEP_LR
    ),
    "Part 2 (ResNet-18 with CIFAR stem, width 8; SGD, CosineAnnealingLR)": Recipe(
        Case("resnet18", "cifar", width=8),
        "SGD",
        {"lr": 0.005, **_SGD},
        "CosineAnnealingLR",
        {"T_max": STEPS},
    ),
    "Part 3's AdamW and OneCycleLR (SimpleCNN; mixed and smoothed targets, clipping, EMA)": Recipe(
        Case("simple_cnn", width=8),
        "AdamW",
        {"lr": 5e-4, "weight_decay": 5e-4},
        "OneCycleLR",
        _ONE_CYCLE,
        clip_norm=1.0,
        label_smoothing=0.1,
        ema=0.9,
        is_mixed=True,
    ),
    "Part 1 in float32": Recipe(
        Case("simple_cnn", width=32, dtype="float32"), "SGD", {"lr": 0.01, **_SGD}, *_STEP_LR
    ),
}


def _declare(title: str, recipe: Recipe) -> None:
    against = f"torch.optim.{recipe.optimizer}, {recipe.schedule}"
    if recipe.ema:
        against += ", AveragedModel, clip_grad_norm_"
    dtype = recipe.case.dtype
    after = "parameters and statistics"
    after += ", moving averages" if recipe.ema else ""
    reason = f"{dtype} rounding"
    for part, what, tolerances in (
        ("first", "loss, parameters and statistics of one step", (1e-11, 1e-6)),
        ("last", f"every loss of ten steps, then {after}", (1e-9, 1e-5)),
    ):
        row(
            f"{title}: {what}",
            group=GROUP,
            against=against,
            tolerance=tolerances[dtype == "float32"],
            reason=reason if part == "first" else f"{reason}, which every step magnifies",
            dtype=dtype,
        )(lambda part=part: tuple(getattr(side, part) for side in outcomes(title)))


for _title, _recipe in RECIPES.items():
    _declare(_title, _recipe)
