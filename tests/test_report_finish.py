from jaxcifar import train
from jaxcifar.report import charts
from jaxcifar.spec import ConfigError


def test_a_run_ends_with_its_report(small_config, tmp_path, reports, capsys):
    small_config.num_epochs = 1
    small_config.augment = "random_flip"
    train.train_and_evaluate(small_config, tmp_path / "run")
    assert f"report: {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    for name in ("results", "curves", "mistakes", "augmentation"):
        assert f'id="{name}"' in page
    for name in ("preview.png", "examples.npz"):
        assert (tmp_path / "run" / name).exists()


def test_a_run_ends_as_always_without_matplotlib(
    small_config, tmp_path, reports, capsys, monkeypatch
):
    def missing():
        raise ConfigError("reports need matplotlib: pip install matplotlib")

    monkeypatch.setattr(charts, "check_available", missing)
    small_config.num_epochs = 1
    summary = train.train_and_evaluate(small_config, tmp_path)
    assert summary["best_epoch"] == 1
    assert "no report: reports need matplotlib: pip install matplotlib" in capsys.readouterr().out
