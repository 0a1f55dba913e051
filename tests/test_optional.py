import pathlib
import tomllib

from jaxcifar import optional

ROOT = pathlib.Path(__file__).parents[1]


def test_the_installation_is_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in extras["torch"] + extras["sweep"]:
        name = "optuna" if requirement.startswith("optuna") else "torch"
        assert f"'{requirement}'" in optional.install(name)
