import pathlib

import huggingface_hub
import numpy as np
import pytest
import torch_reference
from golden import make_resnet
from resnet_weights import WIDTH, abstract, draw

from jaxcifar import config as config_lib
from jaxcifar import corruption_benchmark, data, hub, model_card, scores, scoring, state_dict_files
from jaxcifar.report.run_files import RunFiles
from jaxcifar.spec import ConfigError

NAMES = ("bird", "cat", "dog")


@pytest.fixture
def config(small_config):
    small_config.model.name = "resnet18"
    small_config.model.width = WIDTH
    small_config.augment = "random_flip | random_crop(32, padding=4)"
    return small_config


@pytest.fixture
def run(tmp_path):
    """The files of a finished run, with random scores."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    logits = rng.normal(size=(50, 3)).astype(np.float32)
    test = data.Dataset(np.zeros((50, 32, 32, 3), np.uint8), labels.astype(np.int32), NAMES)
    evaluation = scores.summarize(logits, test, logits, labels)
    predicted = {"fog": rng.integers(0, 3, 250), "snow": rng.integers(0, 3, 250)}
    evaluation["corruptions"] = corruption_benchmark.scores(
        predicted, np.tile(labels, 5), evaluation["accuracy"]
    )
    evaluation["scored_on"] = "test"
    summary = {"best_epoch": 3, "best_val_acc": 45.678, **scoring.headline(evaluation)}
    summary |= {"versions": {"jax": "0.10.2"}, "device": "CPU"}
    return RunFiles(tmp_path, "run", {}, [], list(NAMES), summary, evaluation, None, b"", False, [])


def card(config, run):
    return huggingface_hub.ModelCard(model_card.make("me/net", config, NAMES, run))


def test_metadata_has_the_scores(config, run):
    metadata = card(config, run).data
    assert metadata.library_name == "jaxcifar"
    assert metadata.tags == ["image-classification"]
    assert metadata.license is None and metadata.datasets is None
    assert metadata.model_name == "net"
    found = {(r.metric_name, r.dataset_name): r.metric_value for r in metadata.eval_results}
    corrupted = "synthetic images under 2 corruptions"
    assert found == {
        ("test accuracy, %", "synthetic images"): round(run.evaluation["accuracy"], 4),
        ("top-5 accuracy, %", "synthetic images"): round(run.evaluation["top5_accuracy"], 4),
        ("test loss", "synthetic images"): round(run.evaluation["loss"], 4),
        ("mean accuracy, %", corrupted): round(run.evaluation["corruptions"]["mean"], 4),
    }
    config.data.name = "cifar10"
    metadata = card(config, run).data
    assert metadata.datasets == ["uoft-cs/cifar10"]
    assert {r.dataset_type for r in metadata.eval_results} == {"uoft-cs/cifar10"}


def test_scores_on_validation_images_say_so(config, run):
    run.evaluation["scored_on"] = "val"
    metadata = card(config, run).data
    assert {result.dataset_split for result in metadata.eval_results} == {"validation"}
    assert metadata.eval_results[0].metric_name == "val accuracy, %"


def test_text_says_what_it_is_and_how_to_load_it(config, run):
    text = card(config, run).text
    assert "A ResNet-18 (8 channels in the first stage, 3×3 stem without pooling" in text
    assert "32×32 images of 3 classes, trained on synthetic images" in text
    assert "Of epoch 3, which had the best validation accuracy, 45.68%" in text
    assert scoring.table(run.evaluation) in text and "fog " in text
    assert "model.stem=cifar --config.model.width=8 --config.data.image_size=32 \\\n" in text
    assert "--config.model.pretrained=hf://me/net\n" in text
    assert f"subtract the mean {tuple(config.data.mean)}" in text
    assert "| `augment` | `'random_flip \\| random_crop(32, padding=4)'` |" in text
    assert "| `num_epochs` | `3` |" in text and "`seed`" not in text
    assert "Trained with jax 0.10.2, on CPU." in text


def test_unfinished_run_has_no_scores(config, run):
    run.summary = {}
    run.records = [{"epoch": 1, "val_acc": 12.5}]
    unfinished = card(config, run)
    assert unfinished.data.eval_results is None
    assert "not finished (interrupted after 1 epochs; best validation accuracy 12.50%)" in (
        unfinished.text
    )


def test_damaged_scores_raise(config, run):
    del run.evaluation["accuracy"]
    with pytest.raises(ConfigError, match=r"evaluation\.json cannot be read .*; score the run"):
        card(config, run)


def test_shareable_config_names_no_places(config):
    config.config_file = "/home/me/configs/mine.py"
    config.data.update(name="folder", dir="/home/me/images", archive="/home/me/cifar.tar.gz")
    config.eval.ood_dir = "/home/me/CIFAR-100-C"
    config.parallel.coordinator = "host0:1"
    config.model.pretrained = "/home/me/runs/part2"
    shared = model_card.shareable(config)
    text = config_lib.to_json(shared)
    assert "/home" not in text and "host0" not in text
    assert (shared.config_file, shared.model.pretrained) == ("mine.py", "part2")
    assert config.data.dir == "/home/me/images"
    config.model.pretrained, config.eval.ood_dir = "hf://me/net@v1", "generate"
    shared = model_card.shareable(config)
    assert (shared.model.pretrained, shared.eval.ood_dir) == ("hf://me/net@v1", "generate")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "stem", "head", "width"),
    [
        ("resnet18", "cifar", "mlp", 64),
        ("resnet18", "imagenet", "linear", WIDTH),
        ("resnet34", "cifar", "linear", WIDTH),
        ("resnet50", "imagenet", "mlp", WIDTH),
    ],
)
def test_pytorch_code_loads_the_weights(config, name, stem, head, width, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    torch_reference.torchvision()
    config.model.update(name=name, stem=stem, head=head, width=width)
    config.model.head_hidden = (6, 4)
    arguments = {"head_hidden": (6, 4)} if head == "mlp" else {}
    model = abstract(name, num_classes=3, stem=stem, head=head, width=width, **arguments)
    state_dict = draw(model)
    path = pathlib.Path(tmp_path) / hub.WEIGHTS
    state_dict_files.write(state_dict, path)
    requests = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *names: requests.append(names) or str(path)
    )
    scope = {}
    exec(model_card.pytorch_code("me/net", config, 3), scope)
    assert requests == [("me/net", hub.WEIGHTS)]
    loaded = scope["net"].state_dict()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(loaded[key].numpy(), value)
    images = torch.from_numpy(make_resnet.images(stem))
    with torch.no_grad():
        assert scope["net"](images).shape == (2, 3)
