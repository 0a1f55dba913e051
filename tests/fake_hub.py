"""A Hugging Face hub on this machine, for its real client: repositories of models in memory.

It speaks what the client needs to download a file and to push a commit: `resolve` with branches,
tags and commits, repository creation, the LFS upload of model.safetensors, and the hub's error
codes.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

TOKEN = "hf_of_the_tests"


@dataclasses.dataclass
class Repository:
    """The files of each commit, and which commit each branch or tag is."""

    is_private: bool = False
    is_gated: bool = False
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    refs: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds a commit with these files beside those of the branch; returns its hash."""
        files = self.commits.get(self.refs.get(branch, ""), {}) | files
        text = repr((len(self.commits), sorted(files.items())))
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.refs[branch] = files, oid
        return oid


class FakeHub:
    """A hub, and what it was asked for (`requests`, as "METHOD path")."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}  # by sha256
        self.url = ""

    def add(self, name: str, files: dict[str, bytes], **attributes) -> str:
        """Adds a commit to a repository, which is created if it is missing; returns its hash."""
        repository = self.repositories.setdefault(name, Repository())
        for attribute, value in attributes.items():
            setattr(repository, attribute, value)
        return repository.commit(files)

    def environment(self, cache) -> dict[str, str]:
        """Returns the variables with which another process uses the hub, with its cache there."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",  # the protocol of another server
            "HF_TOKEN": TOKEN,
        }

    @contextlib.contextmanager
    def serving(self):
        """Serves on a port of this machine; yields the hub."""
        handler = type("Handler", (_Handler,), {"hub": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Prints nothing."""

    def do_HEAD(self):
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, method in (
            (r"/([\w.-]+/[\w.-]+)/resolve/(.+)/([^/]+)", self._resolve),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda: self._send({})),
            (r"/api/models/([\w.-]+/[\w.-]+)", self._info),
            (r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", self._preupload),
            (r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/upload/(\w+)", self._upload),
            (r"/api/models/([\w.-]+/[\w.-]+)/commit/main", self._commit),
        ):
            if match := re.fullmatch(pattern, path):
                return method(*match.groups())
        return self._send({"error": "unknown path"}, 404)

    @property
    def _has_token(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _visible(self, name):
        """Returns a repository, or None after answering with an error."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.is_private and not self._has_token):
            self._send({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
        elif repository.is_gated:
            self._send({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        else:
            return repository
        return None

    def _resolve(self, name, revision, file):
        if not (repository := self._visible(name)):
            return
        oid = repository.refs.get(revision, revision)
        if oid not in repository.commits:
            self._send({"error": "no revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif file not in repository.commits[oid]:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
            self._send({"error": "no file"}, 404, headers)
        else:
            content = repository.commits[oid][file]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(content, headers={"X-Repo-Commit": oid, "ETag": etag})

    def _create(self):
        values = json.loads(self.body)
        name = f"{values['organization']}/{values['name']}"
        if not self._has_token:
            self._send({"error": "Invalid credentials"}, 401)
        elif values["organization"] != "me":
            self._send({"error": "You don't have the rights to create a model there"}, 403)
        elif name in self.hub.repositories:
            self._send({"error": "You already created it", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            repository = Repository(is_private=values.get("visibility") == "private")
            repository.commit({})
            self.hub.repositories[name] = repository
            self._send({"url": f"{self.hub.url}/{name}"})

    def _info(self, name):
        if repository := self._visible(name):
            self._send({"id": name, "private": repository.is_private, "sha": "", "tags": []})

    def _preupload(self, name):
        modes = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(".safetensors")
            modes.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large else "regular",
                    "shouldIgnore": False,
                }
            )
        self._send({"files": modes})

    def _batch(self, name):
        objects = [
            item | {"actions": {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}}}
            for item in json.loads(self.body)["objects"]
        ]
        self._send({"transfer": "basic", "objects": objects})

    def _upload(self, sha256):
        assert hashlib.sha256(self.body).hexdigest() == sha256
        self.hub.uploads[sha256] = self.body
        self._send({})

    def _commit(self, name):
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        oid = self.hub.repositories[name].commit(files)
        self._send({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _send(self, content, status=200, headers=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
