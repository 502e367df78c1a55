"""A small Hugging Face hub on loopback: the HTTP API that huggingface_hub uses to push and to load models.

Repositories, branches, private ones, Git LFS, and errors on demand: `with HubStub() as hub`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

DROP = 0
"""Instead of a status: the connection is closed without an answer."""
ME, OTHER, READER = "hf_me", "hf_other", "hf_reader"
_USERS = {ME: "me", OTHER: "other", READER: "me"}


@dataclass
class Repository:
    """commits: the files of each commit by path; heads: branch or tag → commit; messages: of each commit."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        digest = hashlib.sha1(f"{branch} {self.heads.get(branch)} {message}".encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        self.heads[branch] = commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        self.messages.append(message)
        return commit

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.heads.get(revision)


class HubStub:
    """The server. requests: "METHOD path" of every request; failures: part of "METHOD path" → status, or DROP."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: dict[str, int] = {}
        self.gated: set[str] = set()
        stub = self

        class Bound(_Handler):
            hub = stub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubStub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def replace_hub(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Make huggingface_hub use this server, with an empty cache and a token of the user `me`. It has no Xet storage."""
        from huggingface_hub import constants

        template = f"{self.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values = {"ENDPOINT": self.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(cache)}
        values |= {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(cache / "no-token")}
        for name, value in values.items():
            patch.setattr(constants, name, value)
        patch.setenv("HF_TOKEN", ME)
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)

    def add(self, name: str, files: dict[str, bytes], branch: str = "main", *, private: bool = False) -> str:
        """Put files into a repository, as one commit on a branch, and return the commit."""
        return self.repositories.setdefault(name, Repository(private)).commit(branch, files, "added")

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision, without those that the hub made."""
        repository = self.repositories[name]
        commit = repository.resolve(revision)
        assert commit is not None
        return {path: content for path, content in repository.commits[commit].items() if path != ".gitattributes"}

    def sent(self, method: str) -> Iterator[str]:
        """The paths of the requests with a method."""
        return (request.partition(" ")[2] for request in self.requests if request.startswith(f"{method} "))


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        self.body = self._read_body()
        try:
            for part, status in self.hub.failures.items():
                if part in request:
                    if status == DROP:
                        self.close_connection = True
                        self.connection.close()
                        return
                    raise _Refused(status, message="as the test asks")
            self._route(path)
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            self._send(refused.status, {"error": refused.message}, {**headers, "X-Error-Message": refused.message})

    def _route(self, path: str) -> None:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if path == "/api/repos/create":
            self._create(json.loads(self.body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(self.body)["content"])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._check_write(path.strip("/").partition(".git/")[0])
            self._lfs_batch(json.loads(self.body))
        elif parts[0] == "lfs":
            if hashlib.sha256(self.body).hexdigest() != parts[1]:
                raise _Refused(400, message="wrong sha256")
            self.hub.objects[parts[1]] = self.body
            self._send(200, {})
        elif parts[:2] == ["api", "models"]:
            self._model("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            raise _Refused(404, message=f"the stub has no {path}")

    @property
    def _user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in _USERS:
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return _USERS.get(token)

    def _check_write(self, name: str) -> None:
        if self._user is None:
            raise _Refused(401, message="Invalid credentials in Authorization header")
        if name.partition("/")[0] != self._user or READER in self.headers["Authorization"]:
            raise _Refused(403, message=f"You don't have the rights to write to {name}")

    def _repository(self, name: str) -> Repository:
        repository, user = self.hub.repositories.get(name), self._user
        if repository is None or (repository.private and user != name.partition("/")[0]):
            raise _Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if name in self.hub.gated:
            raise _Refused(403, "GatedRepo", "Access to this model is restricted")
        return repository

    def _revision(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self._repository(name)
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def _create(self, request: dict[str, Any]) -> None:
        name = f"{request.get('organization') or self._user}/{request['name']}"
        self._check_write(name)
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.repositories:
            self._send(409, {**url, "error": "You already created this model repo"})
            return
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self._send(200, url)

    def _validate(self, content: str) -> None:
        _, _, rest = content.partition("---\n")
        try:
            data = yaml.safe_load(rest.partition("\n---")[0])
            valid = isinstance(data, dict) and isinstance(data.get("tags"), list) and isinstance(data.get("base_model", ""), str)
        except yaml.YAMLError:
            valid = False
        self._send(200 if valid else 400, {"errors": [] if valid else [{"message": "invalid metadata"}], "warnings": []})

    def _lfs_batch(self, request: dict[str, Any]) -> None:
        objects = []
        for entry in request["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}", "header": {}}}
            objects.append({**entry, **({} if entry["oid"] in self.hub.objects else {"actions": upload})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _model(self, name: str, rest: list[str]) -> None:
        action, revision = (rest[0] if rest else "revision"), (rest[1] if len(rest) > 1 else "main")
        if self.command == "POST":
            self._check_write(name)
        if action == "branch":
            repository = self._repository(name)
            if revision in repository.heads:
                raise _Refused(409, message="Reference already exists")
            repository.heads[revision] = repository.heads["main"]
            self._send(200, {})
            return
        commit, files = self._revision(name, revision)
        if action == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._send(200, {"id": name, "sha": commit, "private": self.hub.repositories[name].private, "siblings": siblings})
        elif action == "tree":
            self._send(200, [self._entry(path, content) for path, content in files.items()])
        elif action == "preupload":
            asked = json.loads(self.body)["files"]
            modes = [{"path": entry["path"], "uploadMode": "lfs" if _is_lfs(entry["path"]) else "regular"} for entry in asked]
            known = {path: _blob(content) for path, content in files.items() if not _is_lfs(path)}
            self._send(200, {"files": [{**mode, "shouldIgnore": False, "oid": known.get(mode["path"])} for mode in modes]})
        elif action == "commit":
            self._commit(name, revision, dict(files))
        else:
            raise _Refused(404, message=f"the stub has no {action}")

    def _commit(self, name: str, branch: str, files: dict[str, bytes]) -> None:
        message = ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.repositories[name].commit(branch, files, message)
        self._send(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
        if _is_lfs(path):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _resolve(self, name: str, revision: str, path: str) -> None:
        commit, files = self._revision(name, revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if _is_lfs(path) else _blob(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Type": "application/octet-stream"}
        if _is_lfs(path):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send(200, content, headers)

    def _send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_lfs(path: str) -> bool:
    return path.endswith(".safetensors")


def _blob(content: bytes) -> str:
    """The hash that Git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
