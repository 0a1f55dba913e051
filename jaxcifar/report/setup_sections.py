"""The sections of a run's report about how it was made: augmentation, config, environment."""

import json
import pathlib
import shlex
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import config_files, config_keys
from jaxcifar.report import html
from jaxcifar.report.run_files import RunFiles, flatten
from jaxcifar.spec import ConfigError

INTERNAL = tuple(name for name, key in config_keys.all_keys().items() if key.is_internal)


def to_config(run: RunFiles) -> ConfigDict:
    """Returns the run's config; keys that are not known here are ignored."""
    nested: dict[str, Any] = {}
    for name, value in run.config.items():
        *groups, leaf = name.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    return config_lib.from_dict(nested)


def show(value: Any) -> str:
    """Returns a config's value as text."""
    if value is None:
        return "unset"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def augmentation(run: RunFiles) -> str:
    """Returns the picture of training images and their augmentation."""
    if not run.preview:
        return ""
    alt = "Rows of training images: originals, then samples of their augmentation."
    picture = html.image(run.preview, "image/png", alt)
    return html.figure(picture, f"augment: {run.config['augment']}", "wide")


def config(run: RunFiles) -> str:
    """Returns the config: what differs from its file or the defaults, then all of it."""
    if not run.config:
        return ""
    base, origin, note = _base(run)
    rows = [(name, show(run.config[name]), show(base.get(name))) for name in _changed(run, base)]
    columns = ("key", "this run", origin)
    body = html.paragraph(note) if note else ""
    if rows:
        body += html.table(f"What differs from {origin}", columns, rows, columns)
    else:
        body += html.paragraph(f"Nothing differs from {origin}.")
    everything = [(name, show(value)) for name, value in sorted(run.config.items())]
    table = html.table("The whole config", ("key", "value"), everything, ("value",))
    return body + html.details("The whole config", table)


def environment(run: RunFiles) -> str:
    """Returns what computed the run; "" if the summary does not say."""
    entries = {
        name: run.summary[name]
        for name in ("device", "versions", "git")
        if run.summary.get(name) is not None
    }
    rows = [(name.removeprefix("versions."), show(value)) for name, value in flatten(entries)]
    return html.table("What computed the run", ("name", "value"), rows, ("value",)) if rows else ""


def reproduce(run: RunFiles) -> str:
    """Returns the command that makes the run again."""
    if not run.config:
        return ""
    file = run.config.get("config_file")
    if not file:
        return html.paragraph(
            "The run was started from Python, with a config without a file: set what differs from "
            "the defaults in jaxcifar.config.default(), and call "
            "jaxcifar.train.train_and_evaluate(config, workdir)."
        )
    base, origin, _ = _base(run)
    flags = [f"--config={file}", f"--workdir=runs/{run.name}-again"]
    text = "The same processor and versions give the same numbers."
    if origin == file:
        flags += [f"--config.{name}={_flag(run.config[name])}" for name in _changed(run, base)]
    else:
        text = "Its config file is not here: the command lacks keys that were set on the way."
    command = " \\\n    ".join(["python -m jaxcifar.main", *map(shlex.quote, flags)])
    return html.command(command) + html.paragraph(text)


def _base(run: RunFiles) -> tuple[dict[str, Any], str, str]:
    """Returns the config that the run's is compared with, what that is, and a remark ("": none)."""
    file = run.config.get("config_file")
    if not file:
        return _values(config_lib.default()), "the defaults", ""
    for path in (file, f"configs/{pathlib.Path(file).name}"):
        if config_files.find(path) is None:
            continue
        try:
            read = config_lib.read(path)
        except ConfigError as error:
            return _values(config_lib.default()), "the defaults", f"{error}."
        is_same = read.config_sha256 == run.config.get("config_sha256")
        return _values(read), file, "" if is_same else f"{path} has changed since the run started."
    return _values(config_lib.default()), "the defaults", f"The config file {file} is not here."


def _values(config: ConfigDict) -> dict[str, Any]:
    return dict(flatten(json.loads(config_lib.to_json(config))))


def _changed(run: RunFiles, base: dict[str, Any]) -> list[str]:
    """Returns the keys whose values differ from the base's."""
    return [
        name
        for name, value in run.config.items()
        if name not in INTERNAL and (name not in base or value != base[name])
    ]


def _flag(value: Any) -> str:
    """Returns a value as the command line takes it."""
    return value if isinstance(value, str) else repr(value)
