"""Several seeds of one config: a run for each, one after another, and a summary of them.

Each is complete, as if trained alone, in `seed-<seed>` in the work directory. That has only
config.json, summary.json and report.html of its own.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import followers, scores, scoring
from jaxcifar.manifest import write_atomically, write_json
from jaxcifar.run import Run, seed_directory

if typing.TYPE_CHECKING:
    from jaxcifar.data import Parts
    from jaxcifar.program import Program

# The keys of a run's summary of which that of several has the mean and the spread
SCORES = ("best_val_acc", "test_acc", "test_loss", "top5_acc", "ood_acc", "ood_acc_standard")


@dataclasses.dataclass
class Shared:
    """What the runs of several seeds have in common, once the first has made it."""

    images: Parts | None = None
    program: Program | None = None


def train_seeds(run: Run, train: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """Trains each seed that has not finished, and returns the contents of summary.json, which it
    writes with a report that compares the seeds.

    Args:
        run: a config with `num_seeds`, and the work directory of all.
        train: fn(the run of a seed) -> its summary.

    Raises:
        ConfigError: the directory of a seed holds another run; what `train` raises.
    """
    from jaxcifar.report import finish  # lazy: a run should not wait for it at its start

    config, summaries = run.config, {}
    for seed in range(config.seed, config.seed + config.num_seeds):
        directory = seed_directory(run.directory, seed)
        with followers.claim(of_seed(config, seed), directory) as one:
            one.band = run.band
            if run.is_main:
                write_atomically(run.directory / "config.json", config_lib.to_json(config))
            summary = one.finished_summary()
            number = f"{seed - config.seed + 1} of {config.num_seeds}"
            print(f"seed {seed} ({number})" + (" is already finished" if summary else ""))
            summaries[seed] = summary or train(one)
    summary = summarize(summaries)
    if run.is_main:
        run.lock.check()
        write_json(run.directory / "summary.json", summary)
        workdirs = [seed_directory(run.directory, seed) for seed in summaries]
        print(finish.write_for_seeds(run.directory, workdirs))
    return summary


def of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """Returns the config of one seed's run."""
    one = config.copy_and_resolve_references()
    one.seed, one.num_seeds = seed, 1
    return one


def summarize(summaries: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Returns the summary of the runs of several seeds.

    Each score is the mean over the seeds; `<score>_std` is the sample standard deviation, and
    `<score>_ci95` half the width of the mean's 95% confidence interval by Student's t distribution.
    `best_epoch` and `images_per_second` are means, too, `wall_seconds` is the sum, and what the
    seeds have in common is as in the last one's.

    Args:
        summaries: of each run, by seed.
    """
    runs = list(summaries.values())
    summary = {"seeds": list(summaries)}
    for key in ("best_epoch", "images_per_second"):
        summary[key] = float(np.mean([one[key] for one in runs]))
    summary["wall_seconds"] = sum(one["wall_seconds"] for one in runs)
    for key in SCORES:
        if all(key in one for one in runs):
            mean, std, half_width = scores.mean_and_spread([one[key] for one in runs])
            summary |= {key: mean, f"{key}_std": std, f"{key}_ci95": half_width}
    own = {*summary, "worst_classes"}
    return summary | {key: value for key, value in runs[-1].items() if key not in own}


def describe(summary: dict[str, Any]) -> str:
    """Returns the headline of such a summary as a line."""
    name = scoring.accuracy_name(summary)
    return (
        f"{name} {summary['test_acc']:.2f}% ± {summary['test_acc_std']:.2f} (mean and "
        f"standard deviation over {len(summary['seeds'])} seeds; 95% interval of the mean ± "
        f"{summary['test_acc_ci95']:.2f})  validation accuracy {summary['best_val_acc']:.2f}% ± "
        f"{summary['best_val_acc_std']:.2f}"
    )
