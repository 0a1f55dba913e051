"""Trains a config's model and scores it, or resumes such a run.

python -m jaxcifar.main --config=configs/part1.py [--workdir=runs/part1] [--fresh]
                        [--check_recipe] [--profile=DIR] [--smoke] [--config.KEY=VALUE ...]

The work directory is by default runs/<config file's name>. --smoke tries everything first, on a few
images: training, saving, resuming, scoring and the report, in <workdir>-smoke. --check_recipe says
after each epoch whether the learning rate and the validation accuracy are off the band of the
config's own runs, <config's name>.band.json.
"""

import pathlib
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxcifar import cli, followers, recipe_band, scoring, seeds
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

_PROFILE = flags.DEFINE_string("profile", None, "a directory for a profile of 20 steps")
_SMOKE = flags.DEFINE_bool("smoke", False, "try the run on a few images, in <workdir>-smoke")
_CHECK_RECIPE = flags.DEFINE_bool(
    "check_recipe", False, "compare each epoch with those that the config's runs had"
)
_FRESH = flags.DEFINE_bool("fresh", False, "move an existing work directory aside and start over")


def main(config: ConfigDict) -> int:
    """Trains and evaluates; returns the exit code."""
    workdir = cli.WORKDIR.value or f"runs/{pathlib.Path(config.config_file).stem}"
    if _SMOKE.value:
        if _CHECK_RECIPE.value:
            raise ConfigError("--smoke is no run of the recipe: leave out --check_recipe")
        from jaxcifar import smoke  # lazy: as train below

        print(smoke.smoke(config, workdir))
        return 0
    band = recipe_band.load(config) if _CHECK_RECIPE.value else None
    with followers.claim(config, workdir, fresh=_FRESH.value) as run:
        run.band = band
        if run.moved_to:
            print(f"the old run is now in {run.moved_to}")
        summary = run.finished_summary()
        if summary:
            is_early = run.progress.epoch < config.num_epochs
            hint = (
                "; it stopped early: raise early_stopping.patience to continue" if is_early else ""
            )
            print(f"this run is already finished{hint}; --fresh starts it over")
            if band:
                records = run.progress.records
                print(band.check_data(run.progress.class_names, records[0]["step"]))
                print(band.verdict(records))
            ood_dir = config.eval.ood_dir
            if ood_dir and "ood_acc" not in summary:
                print(
                    "to score it under corruptions: python -m jaxcifar.evaluate "
                    f"--workdir={workdir} --ood_dir={ood_dir}"
                )
        else:
            # lazy: --help and errors should not wait for JAX
            from jaxcifar import profiling, train

            profile = profiling.StepProfile(_PROFILE.value if run.is_main else None)
            summary = train.train_run(run, profile)
    if run.is_main:
        _print_results(run, summary)
    return 0


def _print_results(run: Run, summary: dict[str, Any]) -> None:
    if "seeds" in summary:
        print(seeds.describe(summary))
    else:
        name = scoring.accuracy_name(summary)
        print(
            f"{name} {summary['test_acc']:.2f}%  loss {summary['test_loss']:.4f}  "
            f"(epoch {summary['best_epoch']}, validation accuracy {summary['best_val_acc']:.2f}%)"
        )
    if "worst_classes" in summary:
        worst = ", ".join(
            f"{name} {value:.1f}%" for name, value in summary["worst_classes"].items()
        )
        print(f"top-5 accuracy {summary['top5_acc']:.2f}%  worst classes: {worst}")
    if "ood_acc" in summary:
        print(f"accuracy {summary['ood_acc']:.2f}% under {summary['ood_corruptions']} corruptions")
    print(f"results are in {run.directory}/")


def launch() -> None:
    """Runs the command and exits."""
    own_flags = (cli.CONFIG, cli.WORKDIR, _SMOKE, _CHECK_RECIPE, _FRESH, _PROFILE)
    cli.launch(main, __doc__, own_flags, takes_config=True)


if __name__ == "__main__":
    launch()
