"""Searches hyperparameters: many short runs of a config, and the best of them as a config file.

python -m jaxcifar.sweep --config=configs/part1.py --study=NAME --trials=N
                         [--workers=N] [--pruner=median|hyperband|none] [--storage=URL]
                         [--workdir=DIR] [--config.KEY=VALUE ...] 'KEY=SPACE' ...

A SPACE is log(a, b), uniform(a, b), int(a, b) or choice(x, y, ...), such as
'optimizer.lr=log(1e-4, 1e-1)'. Trial 0 is the config itself; the validation accuracy decides. The
same command resumes a sweep, however it was stopped. The results are in runs/NAME/ (or DIR):
best.py trains the best config, report.html shows the trials.
"""

import importlib.util
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli, optional
from jaxcifar.signals import StopRequest, stop_signals
from jaxcifar.spec import ConfigError
from jaxcifar.sweep import spaces

if TYPE_CHECKING:
    from jaxcifar.sweep.workers import Workers

_STUDY = flags.DEFINE_string("study", None, "name of the sweep; one of this name is resumed")
_TRIALS = flags.DEFINE_integer(
    "trials", 20, "finished trials that the sweep should have in all; it may grow", lower_bound=1
)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "trials at a time, each in a process of its own", lower_bound=1
)
_PRUNER = flags.DEFINE_enum(
    "pruner", "median", ["median", "hyperband", "none"], "which trials are stopped early"
)
_STORAGE = flags.DEFINE_string(
    "storage",
    None,
    "URL of a database, for several machines (default: SQLite in the sweep's directory)",
)


def main(config: ConfigDict, arguments: list[str]) -> int:
    """Runs the sweep; returns the exit code."""
    name = _STUDY.value
    if not name:
        raise ConfigError("--study is missing: name the sweep, such as --study=part1-lr")
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise ConfigError(f"--study={name!r} is not valid: it must be letters, digits, _, - and .")
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"sweeps need Optuna: {optional.install('optuna')}")
    searched = spaces.parse(arguments, config)

    from jaxcifar.sweep import results, study, workers  # lazy: they import Optuna

    directory = pathlib.Path(cli.WORKDIR.value or f"runs/{name}")
    if (directory / "config.json").exists():
        raise ConfigError(f"{str(directory)!r} holds a run; choose another --study")
    directory.mkdir(parents=True, exist_ok=True)
    url = _STORAGE.value or f"sqlite:///{directory / 'study.db'}"
    overrides = [flag for flag in sys.argv[1:] if flag.startswith("--config.")]
    training_flags = [f"--config={cli.CONFIG.value}", *overrides]
    with study.storage_errors():
        opened = study.open_study(name, url, config, searched, _PRUNER.value, _TRIALS.value)
        done = study.num_finished(opened)
        if done:
            print(f"the study {name!r} has {done} of {_TRIALS.value} finished trials")
        if done < _TRIALS.value:
            study.repeat_failed(opened)
        team = workers.Workers(opened, config, searched, training_flags, directory, _TRIALS.value)

        def write_results() -> tuple[pathlib.Path | None, str]:
            path = results.write_best(opened, config, directory)
            return path, results.write_report(opened, searched, directory)

        with stop_signals() as stop:
            _supervise(team, stop, write_results)
            path, report = write_results()
            if team.error:
                raise team.error
            best = study.best(opened)
            if best:
                print(f"best: trial {study.origin(best)}, validation accuracy {best.value:.2f}%")
                for key, value in best.params.items():
                    print(f"  {key} = {value}")
                print(f"to train it: python -m jaxcifar.main --config={path}")
            print(report)
            if stop:
                print("stopped; the same command resumes the sweep")
                raise stop.exit_exception()
    if best is None:
        raise ConfigError(f"no trial of {name!r} is complete; {report} says why")
    return 0


def _supervise(team: "Workers", stop: StopRequest, write_results: Callable[[], object]) -> None:
    """Has the workers work until they are done or told to stop; writes the results as they come."""
    try:
        team.start(min(_WORKERS.value, _TRIALS.value))
        while team.is_alive():
            if stop:
                team.stop()
            if team.has_news.is_set():
                team.has_news.clear()
                write_results()
            time.sleep(0.1)
    except Exception:  # such as a full disk: the trials are saved
        team.stop()
        team.join()
        raise
    finally:
        team.release()


def launch() -> None:
    """Runs the command and exits."""
    cli.launch(
        main,
        __doc__,
        (cli.CONFIG, _STUDY, _TRIALS, _WORKERS, _PRUNER, _STORAGE, cli.WORKDIR),
        takes_config=True,
        takes_arguments=True,
    )


if __name__ == "__main__":
    launch()
