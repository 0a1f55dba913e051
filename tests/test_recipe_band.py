import json
import shutil

import pytest

from jaxcifar import config as config_lib
from jaxcifar import config_files, recipe_band
from jaxcifar.data import synthetic
from jaxcifar.recipe_band import Band
from jaxcifar.spec import ConfigError

BANDS = sorted(config_files.SHIPPED.glob("*.band.json"))


def band(**values):
    fields = {
        "name": "tiny",
        "num_seeds": 2,
        "config": {"num_epochs": 3},
        "class_names": ["cat", "dog"],
        "steps_per_epoch": 10,
        "lr": [0.3, 0.2, 0.1],
        "val_acc": [[10, 20], [20, 30], [30, 40]],
    }
    return Band(**(fields | values))


def records(*accuracies, lr=(0.3, 0.2, 0.1)):
    return [
        {"epoch": epoch, "lr": lr[epoch - 1], "val_acc": accuracy}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def test_off_says_since_when_and_why():
    assert band().off(records(10, 30, 35)) == ""
    assert band().off(records(10, 31, 41)) == (
        "off the band since epoch 2: validation accuracy 41.00%, expected 30.0 to 40.0%"
    )
    assert band().off(records(9, 25)) == ""  # it was off, and is back
    assert band().off(records(10, 25, lr=(0.3, 0.21))) == (
        "off the band since epoch 2: learning rate 0.21, expected 0.2"
    )
    assert band().off(records(10, 25, lr=(0.3 * (1 + 1e-6), 0.2))) == ""


def test_verdict():
    assert band().verdict(records(10, 30, 35)) == "on the band of tiny.band.json"
    assert band().verdict(records(9)).startswith("off the band since epoch 1: validation")


def test_of_other_classes_only_the_learning_rate_is_checked():
    other = band()
    assert "only the learning rate" in other.check_data(["cat", "dog", "bird"], 10)
    assert other.off(records(99)) == ""
    assert "learning rate" in other.off(records(99, lr=(0.1,)))
    assert "checked after" in other.check_data(["cat", "dog"], 10)
    assert other.off(records(99))


def test_other_steps_are_an_error():
    with pytest.raises(ConfigError, match="is of 10 steps an epoch; this run has 11"):
        band().check_data(["cat", "dog"], 11)


@pytest.mark.parametrize("path", BANDS, ids=lambda path: path.name)
def test_shipped_bands_belong_to_their_configs(path):
    config = config_lib.load(path.name.split(".")[0])
    found = json.loads(path.read_text())
    for key, value in found["config"].items():
        config_lib.override(config, key, str(value))
    loaded = recipe_band.load(config)
    assert len(loaded.lr) == len(loaded.val_acc) == config.num_epochs
    assert all(0 <= low < high <= 100 for low, high in loaded.val_acc)


def test_smoke_does_not_check_the_recipe(call_main):
    code, _, err = call_main("--config=part1", "--smoke", "--check_recipe")
    assert code == 2
    assert "leave out --check_recipe" in err


def test_the_band_must_be_of_the_same_epochs():
    config = config_lib.load("part1")
    config.num_epochs = 7
    with pytest.raises(ConfigError, match=r"runs with --config.num_epochs=5: add that"):
        recipe_band.load(config)


def test_a_config_without_a_band_names_those_with_one():
    with pytest.raises(ConfigError, match=r"no band beside 'configs/photos.py'.*part1, part2"):
        recipe_band.load(config_lib.load("photos"))


def test_a_run_is_checked_as_it_trains(call_main, tmp_path, monkeypatch, pytestconfig):
    """With the right learning rates and an accuracy that cannot be: off since that epoch, and
    likewise when the finished run is asked again.
    """
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(pytestconfig.rootpath / "configs" / "part1.py", tmp_path / "tiny.py")
    flags = [f"--config={path}", "--config.data.name=synthetic100", "--config.model.width=4"]
    flags += ["--config.data.synthetic_size=600", "--config.batch_size=48"]
    flags += ["--config.num_epochs=2", "--check_recipe", "--workdir=run"]
    code, _, err = call_main(*flags)
    assert code == 2
    assert "there is no band beside" in err
    names = list(synthetic.load(600)[0].class_names)
    values = {"num_seeds": 1, "config": {"num_epochs": 2}, "class_names": names}
    values |= {"steps_per_epoch": 10, "lr": [0.01, 0.01], "val_acc": [[0, 100], [99, 100]]}
    (tmp_path / "tiny.band.json").write_text(json.dumps(values))
    code, out, _ = call_main(*flags)
    assert code == 0
    off = "off the band since epoch 2: validation accuracy"
    assert "checked after each epoch against tiny.band.json (runs: 1)" in out
    assert out.count(off) == 2  # after the epoch, and in the end
    code, out, _ = call_main(*flags)
    assert code == 0
    assert out.count(off) == 1
    values["class_names"] = ["cat", "dog"]
    (tmp_path / "tiny.band.json").write_text(json.dumps(values))
    code, out, _ = call_main(*flags)
    assert code == 0
    assert "only the learning rate is checked" in out
    assert "on the band of tiny.band.json" in out
    (tmp_path / "tiny.band.json").write_text("{")
    code, _, err = call_main(*flags)
    assert code == 2
    assert "restore it" in err
