"""The Hugging Face hub: model.safetensors downloaded from its repositories, and a model pushed.

A config names such a file as hf://OWNER/NAME@REVISION. A run records the commit that this was when
it began, and the file's sha256. Importing this does not import huggingface_hub.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from jaxcifar import __version__, state_dict_files
from jaxcifar.spec import ConfigError, first_line

PREFIX = "hf://"
FORMS = f"'', a directory, 'torchvision', {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION"
WEIGHTS = "model.safetensors"
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
_NO_CONNECTION = "no connection"


@dataclasses.dataclass(frozen=True)
class Source:
    """A model.safetensors on the hub: its repository, the revision (a branch, a tag or a commit),
    and its sha256 ("": any).
    """

    repo: str
    revision: str = "main"
    sha256: str = ""

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"https://huggingface.co/{self.repo}"


def parse(pretrained: str) -> Source | None:
    """Returns what a `model.pretrained` names on the hub; None if it names something else.

    Raises:
        ValueError: it begins with hf://, and no repository or no revision follows.
    """
    if not pretrained.startswith(PREFIX):
        return None
    match = re.fullmatch(r"([^@\s]+)(?:@(\S+))?", pretrained.removeprefix(PREFIX))
    if not match or not is_repository(match[1]):
        raise ValueError(pretrained)
    return Source(match[1], match[2] or "main")


def is_valid(pretrained: str) -> bool:
    """Returns whether `parse` can read it."""
    try:
        parse(pretrained)
    except ValueError:
        return False
    return True


def is_repository(name: str) -> bool:
    """Returns whether a repository may have this name, OWNER/NAME."""
    from huggingface_hub.utils import validate_repo_id  # lazy, as everywhere here

    with contextlib.suppress(ValueError):
        validate_repo_id(name)
        return name.count("/") == 1
    return False


# --- downloads ------------------------------------------------------------------------------------


def download(source: Source) -> pathlib.Path:
    """Returns the path of a source's file in the hub's cache, downloaded unless it is there. A
    branch or a tag is looked up on the hub, and in its cache where there is no connection.

    Raises:
        ConfigError: it cannot be downloaded, or has another sha256.
    """
    import huggingface_hub

    offline = (
        f"fetch {WEIGHTS} from there on another machine, run python -m jaxcifar.port "
        f"--input={WEIGHTS} --output=DIR here, and set config.model.pretrained to DIR, "
        "or to '' for random weights"
    )
    with _explained(source, f"{WEIGHTS} cannot be downloaded from {source.url}", offline):
        path = huggingface_hub.hf_hub_download(source.repo, WEIGHTS, revision=source.revision)
    if source.sha256 and (digest := state_dict_files.sha256(path)) != source.sha256:
        raise ConfigError(
            f"{path!r} is not the expected file: its sha256 is {digest}, not {source.sha256}; "
            "delete it and start again"
        )
    return pathlib.Path(path)


def pin(config: ConfigDict) -> ConfigDict:
    """Returns the config with the commit in place of the revision that `model.pretrained` names,
    and the sha256 of the file; the config itself if it names nothing on the hub.

    Raises:
        ConfigError: the file cannot be downloaded.
    """
    source = parse(config.model.pretrained)
    if source is None:
        return config if not config.pretrained_sha256 else _with(config, config.model.pretrained)
    path = download(source)
    commit = path.parent.name  # the hub's cache has .../snapshots/<commit>/model.safetensors
    return _with(config, f"{PREFIX}{source.repo}@{commit}", state_dict_files.sha256(path))


def pin_as_recorded(config: ConfigDict, recorded: ConfigDict) -> ConfigDict | None:
    """Returns the config with the commit and sha256 that a run has recorded; None if these are
    another repository's, or the config names another commit.
    """
    source, before = parse(config.model.pretrained), parse(recorded.model.pretrained)
    is_commit = re.fullmatch("[0-9a-f]{40}", source.revision)
    if before is None or before.repo != source.repo:
        return None
    if is_commit and before.revision != source.revision:
        return None
    return _with(config, recorded.model.pretrained, recorded.pretrained_sha256)


def _with(config: ConfigDict, pretrained: str, sha256: str = "") -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.model.pretrained, config.pretrained_sha256 = pretrained, sha256
    return config


# --- pushing --------------------------------------------------------------------------------------


def check_can_push(repo: str) -> None:
    """Checks the name of a repository, and that there is a token.

    Raises:
        ConfigError: the name cannot be a repository's, or there is no token.
    """
    import huggingface_hub

    if not is_repository(repo):
        raise ConfigError(f"{repo!r} is not the name of a repository: it must be OWNER/NAME")
    if not huggingface_hub.get_token():
        raise ConfigError(f"pushing to the Hugging Face hub needs a token: {_LOG_IN}")


def push(repo: str, files: Mapping[str, bytes], *, private: bool = False) -> Source:
    """Commits files to the main branch of a model's repository, which is created if it is missing;
    returns the repository and the commit.

    Args:
        repo: OWNER/NAME.
        files: contents by name.
        private: create it so that only its owner can see it.

    Raises:
        ConfigError: it cannot be done; or `private`, and the repository is public already.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(library_name="jaxcifar", library_version=__version__)
    source = Source(repo)
    with _explained(source, f"the model cannot be pushed to {source.url}"):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ConfigError(
                f"{source.url} is public already: make it private in its settings, or choose "
                "another name"
            )
        commit = api.create_commit(
            repo,
            [huggingface_hub.CommitOperationAdd(name, text) for name, text in files.items()],
            commit_message="A model trained with jaxcifar",
        )
    return Source(repo, commit.oid)


# --- errors ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(source: Source, what: str, offline: str = "try again later") -> Iterator[None]:
    """Turns what goes wrong on the hub into ConfigErrors, "<what>: <reason>", and hides the
    messages about retries.

    Args:
        source: what is asked for.
        what: what cannot be done then.
        offline: the hint of an error for lack of a connection.
    """
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # the client documents few of its own, and none of the network's
        reason = _reason(error, source)
        hint = offline if reason == _NO_CONNECTION else ""
        raise ConfigError(f"{what}: {reason}", command_hint=hint) from error
    finally:
        logging.set_verbosity(verbosity)


def _reason(error: Exception, source: Source) -> str:
    """Returns what an error of the hub's client means, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # neither on the hub nor in its cache
        error = error.__cause__ or error
    if isinstance(error, errors.GatedRepoError):
        return f"access to it is restricted; ask for it there, and {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private; correct the name, or {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no branch, tag or commit {source.revision!r}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "it has no such file"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"the hub refuses it (status {status}); {_LOG_IN}, with a token that may do that"
        return f"the hub answers with status {status}: {error.server_message or 'try again later'}"
    if isinstance(error, errors.HTTPError | ConnectionError | FileNotFoundError | TimeoutError):
        return _NO_CONNECTION
    return getattr(error, "strerror", None) or first_line(error)
