"""What Optuna keeps about a sweep, and how no trial of it is lost.

A trial that was interrupted has failed in Optuna's eyes: a new trial repeats it, with its values,
and resumes the work directory of the first. `origin` is the number of that first trial, by which
the sweep's users know it.
"""

import contextlib
import copy
import datetime
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
from ml_collections import ConfigDict
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from jaxcifar import config as config_lib
from jaxcifar.report.run_files import flatten
from jaxcifar.spec import ConfigError, first_line
from jaxcifar.sweep.sampler import SeededSampler
from jaxcifar.sweep.spaces import Space

HEARTBEAT_SECONDS = 15
SILENCE_SECONDS = 90  # after which a trial's worker, on another machine, counts as dead
SETTLING_SECONDS = 10  # within which whoever has failed a trial queues its repetition
MAX_ATTEMPTS = 3  # of a trial that fails, or whose process is killed

# A trial's user attributes
OWNER = "owner"  # the process that runs it
STATUS = "status"  # how it ended, where Optuna's states do not say: one of these
DIVERGED, INVALID, FAILED, REPEATED = "diverged", "invalid", "failed", "repeated"
MESSAGE = "message"  # why
KILLS = "kills"  # how often its process was killed

# Keys that say where things are, or that do not change what a trial results in
_FREE = ("config_file", "config_sha256", "data.dir", "data.archive", "steps_per_call", "eval.")
_FREE += ("checkpoint.", "wandb.", "tensorboard", "parallel.")

_retry = RetryHeartbeatStaleTrialCallback


def open_study(
    name: str,
    url: str,
    config: ConfigDict,
    spaces: Mapping[str, Space],
    pruner: str,
    num_trials: int,
) -> optuna.Study:
    """Returns the study of this name: a new one, with the config itself as its first trial, or the
    one that the storage has.

    Args:
        name: the study's name.
        url: the database's, as SQLAlchemy takes it.
        config: the config.
        spaces: what is searched.
        pruner: "median", "hyperband" or "none".
        num_trials: how many trials are planned.

    Raises:
        ConfigError: the storage cannot be used, or its study has another config or other spaces.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    sampler = SeededSampler(config.seed, max(5, min(10, num_trials // 4)))
    try:
        try:
            study = _connect(name, url)
        except SQLAlchemyError as error:
            if "already exists" not in str(error):
                raise
            time.sleep(1)  # another machine is creating the tables at this moment
            study = _connect(name, url)
    except Exception as error:  # SQLAlchemy's, a driver's or Optuna's, of a dozen kinds
        cause = error.__cause__ or error
        raise ConfigError(
            f"the sweep's storage cannot be used ({first_line(cause)}); check --storage"
        ) from error
    study.sampler, study.pruner = sampler, _pruner(pruner, config, spaces)
    _identify(study, config, spaces)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial({key: space.locate(config) for key, space in spaces.items()})
    return study


def _connect(name: str, url: str) -> optuna.Study:
    storage = RDBStorage(
        url,
        {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=SILENCE_SECONDS,
        heartbeat_stale_trial_callback=_retry(),
    )
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turns the errors of a storage that has stopped working into ConfigErrors."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        # Where Optuna cannot record how a trial ended, an assertion of its own hides the reason
        reason: BaseException | None = error
        while reason and not isinstance(reason, SQLAlchemyError | optuna.exceptions.OptunaError):
            reason = reason.__cause__ or reason.__context__
        if reason is None:
            raise
        raise ConfigError(
            f"the sweep's storage failed ({first_line(reason.__cause__ or reason)}); when it works "
            "again, the same command resumes"
        ) from error


def _identify(study: optuna.Study, config: ConfigDict, spaces: Mapping[str, Space]) -> None:
    """Stores what a new study searches; refuses an old one that searches something else."""
    texts = {key: space.text for key, space in spaces.items()}
    attributes = study.user_attrs
    if "config" not in attributes or "spaces" not in attributes:
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                f"the storage has a study {study.study_name!r} that this command did not make; "
                "choose another --study"
            )
        study.set_user_attr("config", config.to_dict())
        study.set_user_attr("spaces", texts)
        return
    old = dict(flatten(config_lib.from_dict(attributes["config"]).to_dict()))
    new = dict(flatten(config.to_dict()))
    changes = [
        f"{key}: the study has {_show(old.get(key))}, you asked for {_show(new.get(key))}"
        for key in old | new
        if not key.startswith(_FREE) and old.get(key) != new.get(key)
    ]
    changes += [
        f"space of {key}: the study has {attributes['spaces'].get(key, 'none')}, you asked for "
        f"{texts.get(key, 'none')}"
        for key in attributes["spaces"] | texts
        if attributes["spaces"].get(key) != texts.get(key)
    ]
    if changes:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise ConfigError(
            f"the study {study.study_name!r} searches something else; choose another --study, or "
            f"repeat its command\n  {changes[0]}{more}"
        )


def _show(value: Any) -> str:
    return "unset" if value is None else repr(value)


def _pruner(
    name: str, config: ConfigDict, spaces: Mapping[str, Space]
) -> optuna.pruners.BasePruner:
    """Returns a pruner whose steps are epochs."""
    epochs = config.num_epochs
    if space := spaces.get("num_epochs"):
        epochs = max(int(text) for text in space.ends())
    if name == "median":  # of the trials that are complete, once there are four
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 5)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


# --- trials and their repetitions -----------------------------------------------------------------


def origin(trial: FrozenTrial) -> int:
    """Returns the number of the trial that this one repeats, or its own."""
    number = _retry.retried_trial_number(trial)
    return trial.number if number is None else number


def attempts(trial: FrozenTrial) -> int:
    """Returns how often the trial has been started, this time included."""
    return 1 + len(_retry.retry_history(trial))


def status(trial: FrozenTrial) -> str:
    """Returns how the trial ended, or where it stands: "complete", "pruned", "diverged", "invalid",
    "failed", "repeated", "interrupted", "running" or "waiting".
    """
    if trial.state is TrialState.FAIL:
        return trial.user_attrs.get(STATUS) or "interrupted"
    if trial.state is TrialState.PRUNED:
        return trial.user_attrs.get(STATUS) or "pruned"
    return trial.state.name.lower()


def latest(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the last attempt of every trial, by origin."""
    trials: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if status(trial) != REPEATED:
            trials[origin(trial)] = trial
    return [trials[number] for number in sorted(trials)]


def best(study: optuna.Study) -> FrozenTrial | None:
    """Returns the complete trial with the highest accuracy, the first of equals."""
    complete = [t for t in latest(study) if t.state is TrialState.COMPLETE]
    return max(complete, key=lambda trial: (trial.value, -origin(trial)), default=None)


def num_finished(study: optuna.Study) -> int:
    """Returns how many trials count: those that are complete, pruned or diverged."""
    return sum(status(t) in ("complete", "pruned", DIVERGED) for t in latest(study))


def repeat(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues a failed trial again."""
    trial = copy.deepcopy(trial)
    trial.user_attrs = {k: v for k, v in trial.user_attrs.items() if k == KILLS}
    _retry()(study, trial)


def repeat_failed(study: optuna.Study) -> None:
    """Queues the trials that failed again, as their cause may be fixed, up to MAX_ATTEMPTS; the
    config itself always.
    """
    for trial in latest(study):
        may = attempts(trial) < MAX_ATTEMPTS or origin(trial) == 0
        if status(trial) == FAILED and may:
            repeat(study, trial)


def recover(study: optuna.Study, is_dead: Callable[[str], bool]) -> None:
    """Queues the trials again whose process was interrupted or has died.

    Args:
        study: the study.
        is_dead: whether an owner is known to have died; of one that is not, the heartbeat counts.
    """
    optuna.storages.fail_stale_trials(study)
    now = datetime.datetime.now()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is None:  # killed before it could say whose it is, or have a heartbeat
            is_lost = now - trial.datetime_start > datetime.timedelta(seconds=SILENCE_SECONDS)
        else:
            is_lost = is_dead(owner)
        if is_lost:
            failed = study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            repeat(study, failed)
    trials = study.get_trials(deepcopy=False)
    repeated = {number for trial in trials for number in _retry.retry_history(trial)}
    for trial in trials:
        if status(trial) != "interrupted" or trial.number in repeated:
            continue
        if now - trial.datetime_complete > datetime.timedelta(seconds=SETTLING_SECONDS):
            repeat(study, trial)


def is_repeated(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Returns whether another attempt at the same trial is going on or has ended: two processes may
    have queued it.
    """
    settled = (TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE, TrialState.PRUNED)
    return any(
        origin(other) == origin(trial)
        for other in study.get_trials(deepcopy=False, states=settled)
        if other.number < trial.number
    )
