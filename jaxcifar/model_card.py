"""The model card of a ResNet on the Hugging Face hub: what it is, its scores, how to load it."""

import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcifar import config as config_lib
from jaxcifar import errors, hub, scoring
from jaxcifar.data.cifar import MIRRORS
from jaxcifar.report.run_files import RunFiles

_DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "synthetic100": "synthetic images",
    "folder": "a folder of images",
}


def shareable(config: ConfigDict) -> ConfigDict:
    """Returns a run's config without the places on the machine that trained it."""
    config = config.copy_and_resolve_references()
    config.data.dir = config.data.archive = config.parallel.coordinator = ""
    config.config_file = pathlib.Path(config.config_file).name
    if config.eval.ood_dir != "generate":
        config.eval.ood_dir = ""
    if hub.parse(config.model.pretrained) is None:  # else a directory, or 'torchvision'
        config.model.pretrained = pathlib.Path(config.model.pretrained).name
    return config


def make(repo: str, config: ConfigDict, class_names: Sequence[str], run: RunFiles) -> str:
    """Returns the card in Markdown, with its metadata in front.

    Args:
        repo: OWNER/NAME, where the model will be.
        config: the run's, a ResNet's; see `shareable`.
        class_names: in the order of the logits.
        run: the files of its work directory; without a summary the run is not finished, and the
            card has no scores.

    Raises:
        ConfigError: evaluation.json is damaged.
    """
    dataset, size = _DATASETS.get(config.data.name, config.data.name), config.data.image_size
    stem = {"cifar": "3×3 stem without pooling", "imagenet": "7×7 stem with max-pool"}
    head = {"linear": "one linear layer", "mlp": "an MLP head"}
    with errors.reading(f"{run.directory / 'evaluation.json'}", "score the run again"):
        metadata, scores = _metadata(repo, config, dataset, run), _scores(run)
    return f"""---
{metadata}
---

# {repo.partition("/")[2]}

A ResNet-{config.model.name.removeprefix("resnet")} ({config.model.width or 64} channels in the \
first stage, {stem[config.model.stem]}, {head[config.model.head]}) for {size}×{size} images of \
{len(class_names)} classes, trained on {dataset} with jaxcifar. `{hub.WEIGHTS}` has torchvision's \
names.

## Scores

{scores}

## Use

Start from it in jaxcifar, for another number of classes with a new output layer; `@` and a commit
after the name pin it:

```
python -m jaxcifar.main --config=configs/photos.py --config.data.dir=path/to/images \\
    {_model_flags(config)} \\
    --config.model.pretrained={hub.PREFIX}{repo}
```

Load it in PyTorch:

```python
{pytorch_code(repo, config, len(class_names))}
```

It maps RGB images [N, 3, {size}, {size}] to logits; the classes' names are in `classes.json`, in
their order. Scale images to [0, 1], subtract the mean {tuple(config.data.mean)} and divide by
{tuple(config.data.std)}, by channel.

## Training

What differs from jaxcifar's defaults (`config.json` has everything):

{_table(config_lib.changes(config))}

{_versions(run)}"""


def pytorch_code(repo: str, config: ConfigDict, num_classes: int) -> str:
    """Returns Python code that downloads the weights and loads them into torchvision's network."""
    from jaxcifar.models.resnet import RESNETS  # lazy: it imports JAX

    model, width = config.model, config.model.width or 64
    block, depths = RESNETS[model.name]
    features = 8 * width * block.expansion
    imports = [
        "from huggingface_hub import hf_hub_download",
        "from safetensors.torch import load_file",
    ]
    imports.append("from torch import nn")
    if width == 64:
        imports.append(f"from torchvision.models import {model.name}")
        lines = [f"net = {model.name}(num_classes={num_classes})"]
    else:
        imports.append(f"from torchvision.models.resnet import {block.__name__}, ResNet")
        lines = [
            f"net = ResNet({block.__name__}, {list(depths)})",
            f"net.conv1 = nn.Conv2d(3, {width}, 7, 2, 3, bias=False)",
            f"net.bn1, net.inplanes = nn.BatchNorm2d({width}), {width}",
        ]
        lines += [
            f"net.layer{i + 1} = net._make_layer({block.__name__}, {width * 2**i}, {depth}"
            + (", stride=2)" if i else ")")
            for i, depth in enumerate(depths)
        ]
        lines.append(f"net.fc = nn.Linear({features}, {num_classes})")
    if model.stem == "cifar":
        lines.append(f"net.conv1 = nn.Conv2d(3, {width}, 3, 1, 1, bias=False)")
        lines.append("net.maxpool = nn.Identity()")
    if model.head == "mlp":
        lines.append("net.fc = nn.Sequential(")
        for index, size in enumerate((*model.head_hidden, num_classes)):
            relu = "nn.ReLU(), " if index else ""
            dropout = f"nn.Dropout({model.head_dropout[index]})"
            linear = f"nn.Linear({features}, {size})"
            lines.append(f"    *(nn.BatchNorm1d({features}), {relu}{dropout}, {linear}),")
            features = size
        lines.append(")")
    lines.append(f'file = hf_hub_download("{repo}", "{hub.WEIGHTS}")')
    lines.append("net.load_state_dict(load_file(file), strict=True)")
    lines.append("net.eval()")
    return "\n".join([*imports, "", *lines])


def _metadata(repo: str, config: ConfigDict, dataset: str, run: RunFiles) -> str:
    """Returns the card's metadata as YAML."""
    import huggingface_hub

    mirror, scored_on = MIRRORS.get(config.data.name), run.evaluation.get("scored_on", "test")
    results = []

    def add(name: str, value: float, metric: str, corrupted: str = "") -> None:
        results.append(
            huggingface_hub.EvalResult(
                task_type="image-classification",
                dataset_type=mirror[0] if mirror else config.data.name,
                dataset_name=f"{dataset} under {corrupted}" if corrupted else dataset,
                dataset_config=corrupted or None,  # else the two would count as one
                dataset_split="validation" if scored_on == "val" else scored_on,
                metric_type=metric,
                metric_name=name,
                metric_value=round(value, 4),
            )
        )

    if run.summary:
        add(f"{scoring.accuracy_name(run.evaluation)}, %", run.evaluation["accuracy"], "accuracy")
        add("top-5 accuracy, %", run.evaluation["top5_accuracy"], "accuracy")
        add(f"{scored_on} loss", run.evaluation["loss"], "loss")
        if corruptions := run.evaluation.get("corruptions"):
            corrupted = f"{corruptions['num_corruptions']} corruptions"
            add("mean accuracy, %", corruptions["mean"], "accuracy", corrupted)
    return huggingface_hub.ModelCardData(
        library_name="jaxcifar",
        tags=["image-classification"],
        datasets=[mirror[0]] if mirror else None,
        model_name=repo.partition("/")[2],
        eval_results=results or None,
    ).to_yaml()


def _scores(run: RunFiles) -> str:
    """Returns the scores of a finished run, or why there are none."""
    if run.summary:
        numbers = run.headline()
        return (
            f"Of epoch {numbers['best_epoch']:.0f}, which had the best validation accuracy, "
            f"{numbers['best_val_acc']:.2f}%:\n\n```\n{scoring.table(run.evaluation)}\n```"
        )
    best = run.best
    found = f"; best validation accuracy {best['val_acc']:.2f}%" if best else ""
    return f"Not scored on test images yet: the run is not finished ({run.status}{found})."


def _model_flags(config: ConfigDict) -> str:
    """Returns the flags for the network and its images."""
    model = config.model
    flags = [f"--config.model.name={model.name}", f"--config.model.stem={model.stem}"]
    flags += [f"--config.model.width={model.width}"] if model.width else []
    return " ".join([*flags, f"--config.data.image_size={config.data.image_size}"])


def _table(values: dict[str, Any]) -> str:
    escaped = {name: repr(value).replace("|", "\\|") for name, value in values.items()}
    rows = [f"| `{name}` | `{value}` |" for name, value in escaped.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _versions(run: RunFiles) -> str:
    """Returns a line on what computed the run; it is in the summary of a finished one."""
    versions = run.summary.get("versions", {})
    parts = [f"{name} {version}" for name, version in versions.items()]
    if device := run.summary.get("device"):
        parts.append(f"on {device}")
    return f"Trained with {', '.join(parts)}.\n" if parts else ""
