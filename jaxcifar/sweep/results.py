"""What a sweep leaves: the best trial's config as a file that trains, and the report."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

import optuna
from ml_collections import ConfigDict
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from jaxcifar import config as config_lib
from jaxcifar import manifest
from jaxcifar.config_keys import GROUPS, all_keys
from jaxcifar.report import sweep as page
from jaxcifar.spec import ConfigError, first_line
from jaxcifar.sweep import spaces
from jaxcifar.sweep import study as study_lib
from jaxcifar.sweep.spaces import Parameter, Space

MIN_COMPLETE = 5  # trials, for importances


def write_best(
    study: optuna.Study, config: ConfigDict, directory: pathlib.Path
) -> pathlib.Path | None:
    """Writes best.py, a config file with the best trial's values; returns its path, None if no
    trial is complete.

    Raises:
        OSError: it cannot be written.
    """
    trial = study_lib.best(study)
    if trial is None:
        return None
    path = directory / "best.py"
    remark = (
        f"The best config of the sweep {study.study_name}: trial {study_lib.origin(trial)}, "
        f"validation accuracy {trial.value:.2f}%."
    )
    text = config_source(config, trial.params, remark, path)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        manifest.write_atomically(path, text)
    return path


def config_source(
    config: ConfigDict, parameters: Mapping[str, Parameter], remark: str, path: pathlib.Path
) -> str:
    """Returns the source of a config file that sets every key that differs from its default, and so
    depends on no other file, unless the config's own file registers functions.

    Args:
        config: the config.
        parameters: values that replace its own; they are marked as found.
        remark: its docstring.
        path: where the file will be.
    """
    best = spaces.with_values(config, parameters)
    changed, lines = config_lib.changes(best), []
    for name in all_keys():
        if name in changed or name in parameters:
            value = spaces.value_of(best, name)
            found = "  # searched" if name in parameters else ""
            literal = json.dumps(value) if isinstance(value, str) else repr(value)
            lines.append(f"    config.{name} = {literal}{found}")
    imports, registering = "", ""
    if _registers_functions(config):
        base = json.dumps(os.path.relpath(config.config_file, path.parent))
        imports = "import pathlib\n\n"
        registering = (
            "    # It registers functions that this config names\n"
            f"    config_lib.read(str(pathlib.Path(__file__).parent / {base}))\n"
        )
    body = "\n".join(lines)
    return (
        f'"""{remark}"""\n\n{imports}from ml_collections import ConfigDict\n\n'
        "from jaxcifar import config as config_lib\n\n\n"
        f"def get_config() -> ConfigDict:\n{registering}    config = config_lib.default()\n{body}\n"
        "    return config\n"
    )


def _registers_functions(config: ConfigDict) -> bool:
    """Returns whether functions are registered that are not the package's own."""
    registries = [group.registry for group in GROUPS.values()]
    if config.augment:
        from jaxcifar.augment.registry import TRANSFORMS  # lazy: it imports JAX

        registries.append(TRANSFORMS)
    return any(
        not entry.function.__module__.startswith("jaxcifar.")
        for registry in registries
        for entry in registry.values()
    )


def write_report(
    study: optuna.Study, searched: Mapping[str, Space], directory: pathlib.Path
) -> str:
    """Writes report.html; returns a line that says where it is, or why there is none."""
    sweep = page.Sweep(
        name=study.study_name,
        trials=[_row(trial) for trial in study_lib.latest(study)],
        spaces={key: space.text for key, space in searched.items()},
        log_keys=frozenset(key for key, space in searched.items() if space.is_log),
        importances=importances(study),
        arguments=_arguments(),
    )
    try:
        return f"report: {page.write(sweep, directory / 'report.html')}"
    except ConfigError as error:
        return f"no report: {error}"


def importances(study: optuna.Study) -> dict[str, float]:
    """Returns the importance of each key, the largest first, summing to 1; {} if there are too few
    complete trials. PED-ANOVA, unlike Optuna's default, does not need scikit-learn.
    """
    complete = [t for t in study_lib.latest(study) if t.state is TrialState.COMPLETE]
    if len(complete) < MIN_COMPLETE or len(complete[0].params) < 2:
        return {}
    if len({trial.value for trial in complete}) == 1:
        return {}
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator()
        )
    except (ValueError, RuntimeError, ZeroDivisionError):  # not enough to compare
        return {}


def _row(trial: FrozenTrial) -> page.Trial:
    epochs = trial.intermediate_values
    last = epochs[max(epochs)] if epochs else None
    status = study_lib.status(trial)
    message = first_line(ValueError(trial.user_attrs.get(study_lib.MESSAGE, "") or " "))
    return page.Trial(
        number=study_lib.origin(trial),
        status=status,
        values=trial.params,
        accuracy=trial.value if status == "complete" else last,
        epochs=max(epochs, default=0),
        attempts=study_lib.attempts(trial) - (status == "waiting"),
        message="" if message == "ValueError" else message,
    )


def _arguments() -> Sequence[str]:
    """Returns the command's arguments, without the password of a storage."""
    return [
        f"--storage={_without_password(argument.partition('=')[2])}"
        if argument.lstrip("-").startswith("storage=")
        else argument
        for argument in sys.argv[1:]
    ]


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url  # lazy, as Optuna does

    return make_url(url).render_as_string(hide_password=True)
