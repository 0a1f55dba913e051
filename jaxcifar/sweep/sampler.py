"""The sampler: Optuna's TPE, seeded for each trial."""

import threading
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial


class SeededSampler(BaseSampler):
    """TPE whose draws depend on the seed and the trial's number, and not on which process asks: a
    restarted sweep, or one on two machines, does not draw the same trials twice.
    """

    def __init__(self, seed: int, num_startup_trials: int):
        """Draws as `seed` says; the first trials are random."""
        self._seed, self._num_startup_trials = seed, num_startup_trials
        self._local = threading.local()  # a worker runs one trial at a time

    def _sampler(self, trial: FrozenTrial) -> TPESampler:
        if getattr(self._local, "number", None) != trial.number:
            self._local.number = trial.number
            state = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
            self._local.sampler = TPESampler(
                seed=int(state[0]),
                n_startup_trials=self._num_startup_trials,
                multivariate=True,
                constant_liar=True,  # else workers side by side would try the same values
            )
        return self._local.sampler

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict:
        """As `BaseSampler` says; so the others."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict
    ) -> dict[str, Any]:
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)
