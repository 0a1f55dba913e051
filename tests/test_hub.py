"""The Hugging Face hub's own client, against a hub on this machine."""

import hashlib
import shutil

import pytest
from fake_hub import TOKEN
from huggingface_hub import constants
from huggingface_hub.utils import _http

from jaxcifar import config as config_lib
from jaxcifar import followers, hub
from jaxcifar.hub import Source
from jaxcifar.run import Run
from jaxcifar.spec import ConfigError

FILES = {"model.safetensors": b"weights", "README.md": b"a card"}
SHA256 = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def commit(hub_server):
    """The commit of a repository, owner/net, with those files; its tag is v1."""
    oid = hub_server.add("owner/net", FILES)
    hub_server.repositories["owner/net"].refs["v1"] = oid
    return oid


@pytest.fixture
def config(small_config):
    small_config.model.name = "resnet18"
    small_config.model.pretrained = "hf://owner/net"
    return small_config


def go_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", None),
        ("torchvision", None),
        ("runs/a@b", None),
        ("hf://owner/net", Source("owner/net", "main")),
        ("hf://owner/net.x@v1", Source("owner/net.x", "v1")),
        ("hf://owner/net@refs/pr/1", Source("owner/net", "refs/pr/1")),
    ],
)
def test_names_are_parsed(text, source):
    assert hub.parse(text) == source


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://net", "hf://owner/", "hf://a/b/c", "hf://a/b@", "hf://a/b@x y", "hf://a--b/c"],
)
def test_malformed_names_are_refused(config, text):
    config.model.pretrained = text
    with pytest.raises(ConfigError, match=r"pretrained='hf://.*' is not valid: .*hf://OWNER/NAME"):
        config_lib.validate(config)


# --- downloads ------------------------------------------------------------------------------------


def test_branches_tags_and_commits_are_downloaded_once(hub_server, commit):
    (path,) = {hub.download(Source("owner/net", name)) for name in ("main", "v1", commit)}
    assert path.read_bytes() == b"weights"
    assert path.parent.name == commit
    requests = [request for request in hub_server.requests if "/resolve/" in request]
    assert sorted(requests) == [  # none for the commit, which the cache has
        "GET /owner/net/resolve/main/model.safetensors",
        "HEAD /owner/net/resolve/main/model.safetensors",
        "HEAD /owner/net/resolve/v1/model.safetensors",
    ]
    assert hub.download(Source("owner/net", commit, SHA256)) == path


def test_cached_branch_needs_no_connection(commit, monkeypatch):
    path = hub.download(Source("owner/net"))
    go_offline(monkeypatch)
    assert hub.download(Source("owner/net")) == path


def test_another_file_than_expected_raises(commit):
    with pytest.raises(ConfigError, match=f"its sha256 is {SHA256}, not 00; delete it"):
        hub.download(Source("owner/net", sha256="00"))


@pytest.mark.parametrize(
    ("attributes", "source", "message"),
    [
        ({}, Source("owner/other"), "there is no such repository, or it is private"),
        ({}, Source("owner/net", "v2"), "it has no branch, tag or commit 'v2'"),
        ({}, Source("owner/net", "empty"), "it has no such file"),
        ({"is_gated": True}, Source("owner/net"), "access to it is restricted; ask for it there"),
        ({"is_private": True}, Source("owner/net"), "there is no such repository, or it is pri"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub_server, commit, monkeypatch, attributes, source, message
):
    repository = hub_server.repositories["owner/net"]
    repository.commits["0" * 40], repository.refs["empty"] = {}, "0" * 40
    hub_server.add("owner/net", {}, **attributes)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(ConfigError, match=message) as caught:
        hub.download(source)
    assert f"downloaded from https://huggingface.co/{source.repo}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_private_repositories_are_downloaded_with_a_token(hub_server, commit):
    hub_server.repositories["owner/net"].is_private = True
    assert hub.download(Source("owner/net")).read_bytes() == b"weights"


@pytest.mark.parametrize("how", ["offline mode", "nobody answers"])
def test_no_connection_is_one_line_with_a_way_out(hub_server, commit, monkeypatch, how):
    if how == "offline mode":
        go_offline(monkeypatch)
    else:
        monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between its retries
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
        )
    with pytest.raises(ConfigError, match=r"owner/net: no connection$") as caught:
        hub.download(Source("owner/net"))
    assert "--input=model.safetensors" in caught.value.command_hint


# --- a run's commit and sha256 --------------------------------------------------------------------


@pytest.fixture
def run(config, commit, tmp_path, add_checkpoint):
    """A run with an epoch's checkpoint, released."""
    with Run.claim(config, tmp_path / "run") as run:
        add_checkpoint(run, 1)
    return run


def forget_downloads(tmp_path):
    shutil.rmtree(tmp_path / "hub")


def test_run_records_commit_and_sha256(run, config, commit):
    assert config.model.pretrained == "hf://owner/net"  # the caller's is unchanged
    with Run.claim(config, run.directory) as again:
        assert again.progress.epoch == 1
    for recorded in (run.config, again.config, config_lib.from_dict(again.progress.config)):
        assert recorded.model.pretrained == f"hf://owner/net@{commit}"
        assert recorded.pretrained_sha256 == SHA256


def test_branch_that_has_moved_is_refused_and_the_commit_resumes(run, config, commit, hub_server):
    moved = hub_server.add("owner/net", {"model.safetensors": b"other weights"})
    with pytest.raises(ConfigError) as caught:
        Run.claim(config, run.directory)
    before, after = f"hf://owner/net@{commit}", f"hf://owner/net@{moved}"
    assert f"pretrained: the run has '{before}', you asked for '{after}'" in str(caught.value)
    assert f"pretrained_sha256: the run has '{SHA256}'" in str(caught.value)
    config.model.pretrained = before
    hub_server.requests.clear()
    with Run.claim(config, run.directory) as again:
        assert again.progress.epoch == 1
    assert hub_server.requests == []
    config.model.pretrained = after
    with pytest.raises(ConfigError, match="you asked for"):
        Run.claim(config, run.directory)


def test_other_content_of_the_commit_is_refused(run, config, commit):
    path = hub.download(Source("owner/net", commit))
    path.write_bytes(b"edited")
    with pytest.raises(ConfigError) as caught:
        Run.claim(config, run.directory)
    assert f"pretrained_sha256: the run has '{SHA256}', you asked for" in str(caught.value)
    assert "model.pretrained" not in str(caught.value)


def test_without_connection_the_recorded_commit_resumes(
    run, config, commit, tmp_path, monkeypatch, capsys
):
    forget_downloads(tmp_path)
    go_offline(monkeypatch)
    for text in ("hf://owner/net", "hf://owner/net@v1", f"hf://owner/net@{commit}"):
        config.model.pretrained = text
        with Run.claim(config, run.directory) as again:
            assert again.progress.epoch == 1
            assert again.config == run.config
        note = f"no connection; going on with hf://owner/net@{commit}, which the run has recorded"
        assert note in capsys.readouterr().out
    for text in ("hf://owner/net2", "hf://owner/net@" + "0" * 40):
        config.model.pretrained = text
        with pytest.raises(ConfigError, match="no connection"):
            Run.claim(config, run.directory)
    config.model.pretrained, config.optimizer.lr = "hf://owner/net", 0.5
    with pytest.raises(ConfigError, match=r"a different config.*\n  optimizer\.lr: the run has"):
        Run.claim(config, run.directory)


def test_without_connection_nothing_new_begins(run, config, tmp_path, monkeypatch):
    forget_downloads(tmp_path)
    go_offline(monkeypatch)
    for workdir, fresh in ((tmp_path / "new", False), (run.directory, True)):
        with pytest.raises(ConfigError, match="no connection"):
            Run.claim(config, workdir, fresh=fresh)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["run"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no connection"):
        Run.claim(config, tmp_path / "empty")


def test_runs_of_several_seeds_have_one_commit(
    config, commit, tmp_path, add_checkpoint, hub_server, monkeypatch
):
    config.num_seeds = 2
    with Run.claim(config, tmp_path / "run") as parent:
        assert parent.config.model.pretrained == f"hf://owner/net@{commit}"
        one = parent.config.copy_and_resolve_references()
        one.num_seeds = 1
        with Run.claim(one, tmp_path / "run" / "seed-42") as run:
            add_checkpoint(run, 1)
    forget_downloads(tmp_path)
    go_offline(monkeypatch)
    with Run.claim(config, tmp_path / "run") as again:
        assert again.config == parent.config


def test_other_weights_leave_no_sha256(run, tmp_path):
    config = run.config.copy_and_resolve_references()
    config.model.pretrained = "torchvision"
    with Run.claim(config, tmp_path / "other") as other:
        assert other.config.pretrained_sha256 == ""
    assert config.pretrained_sha256 == SHA256


def test_followers_have_the_commit_of_process_0(config, commit, tmp_path, monkeypatch):
    """As the second of two processes sees it: what process 0 shares is given."""
    config.parallel.distributed = True
    pinned = f"hf://owner/net@{commit}", SHA256
    found = {"progress": None, "summary": None, "pretrained": pinned}
    monkeypatch.setattr(followers.distributed, "initialize", lambda _: None)
    monkeypatch.setattr(followers.distributed, "is_main", lambda: False)
    monkeypatch.setattr(
        followers.distributed, "share_json", lambda own: found if own is None else own
    )
    run = followers.claim(config, tmp_path / "run")
    assert not run.is_main
    assert (run.config.model.pretrained, run.config.pretrained_sha256) == pinned
    assert config.model.pretrained == "hf://owner/net"


# --- pushing --------------------------------------------------------------------------------------


def test_push_creates_commits_and_commits_again(hub_server):
    first = hub.push("me/net", FILES)
    assert hub_server.repositories["me/net"].commits[first.revision] == FILES
    assert not hub_server.repositories["me/net"].is_private
    second = hub.push("me/net", {"model.safetensors": b"better"})
    assert second.revision != first.revision
    for source, content in ((first, b"weights"), (second, b"better")):
        assert hub.download(source).read_bytes() == content
    commits = [r for r in hub_server.requests if r == "POST /api/models/me/net/commit/main"]
    assert len(commits) == 2


def test_private_means_private(hub_server):
    hub.push("me/net", FILES, private=True)
    assert hub_server.repositories["me/net"].is_private
    hub.push("me/net", FILES, private=True)
    hub_server.repositories["me/net"].is_private = False
    count = len(hub_server.repositories["me/net"].commits)
    with pytest.raises(ConfigError, match="is public already: make it private in its settings"):
        hub.push("me/net", FILES, private=True)
    assert len(hub_server.repositories["me/net"].commits) == count


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("owner/net", TOKEN, r"the hub refuses it \(status 403\); log in"),
        ("me/net", "hf_expired", r"the hub refuses it \(status 401\); log in"),
    ],
)
def test_push_without_permission_raises(hub_server, monkeypatch, repo, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match=rf"pushed to https://huggingface.co/{repo}: {message}"):
        hub.push(repo, FILES)


def test_push_without_connection_raises(hub_server, monkeypatch):
    go_offline(monkeypatch)
    with pytest.raises(ConfigError, match=r"no connection$") as caught:
        hub.push("me/net", FILES)
    assert caught.value.command_hint == "try again later"


def test_push_is_refused_early(monkeypatch):
    with pytest.raises(ConfigError, match="'net' is not the name of a repository"):
        hub.check_can_push("net")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="needs a token: log in with"):
        hub.check_can_push("me/net")
