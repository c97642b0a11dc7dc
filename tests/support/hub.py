"""A small stand-in of the model hub's HTTP interface, on 127.0.0.1 and in memory.

It speaks as much as `huggingface_hub` asks for here: revisions, listings, downloads, and commits
with large files over git-lfs' batch protocol (github.com/git-lfs/git-lfs, docs/api/batch.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

TOKEN, READER = "hf_writes", "hf_reads"

Files = dict[str, bytes]


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@dataclass
class Repo:
    """A repository: its commits, what its branches and tags point at, who may see it."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files) -> str:
        """Move the main branch on; the hash of the new commit."""
        made = sha1(json.dumps([len(self.commits), sorted(map(str, files.items()))]).encode())
        self.commits[made] = files
        self.refs["main"] = made
        return made

    def at(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Hub:
    """The stand-in: its repositories by kind and name, and what was asked of it, in order."""

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def add(
        self, name: str, files: Path | Files, *, kind: str = "models", private: bool = False
    ) -> Repo:
        """A repository with one commit, of these files or those of a folder."""
        if isinstance(files, Path):
            files = {file.name: file.read_bytes() for file in sorted(files.iterdir())}
        repo = self.repos.setdefault((kind, name), Repo(private))
        repo.commit(files)
        return repo

    def repo(self, name: str) -> Repo:
        return self.repos["models", name]

    def files(self, name: str) -> Files:
        """What the main branch of a model holds."""
        repo = self.repo(name)
        return repo.commits[repo.refs["main"]]

    def written(self) -> list[str]:
        """The requests that change something."""
        return [line for line in self.asked if line.split()[0] in ("POST", "PUT")
                and "validate-yaml" not in line]  # fmt: skip


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[0] == "api":
                self._api(parts[1:])
            elif parts[0] == "lfs":
                hub.large[parts[1]] = self.body
                self._say(200, {})
            elif parts[-1] == "batch":
                self._batch()
            else:
                self._file(parts)

        def _api(self, parts: list[str]) -> None:
            if parts == ["validate-yaml"]:
                self._say(200, {"errors": [], "warnings": []})
            elif parts == ["repos", "create"]:
                self._create()
            elif parts[0] not in ("models", "datasets"):
                self._refuse(404, "NotFound", "no such route")
            else:
                kind, name, rest = parts[0], "/".join(parts[1:3]), parts[3:]
                repo = self._seen(kind, name)
                if repo is None:
                    return
                verb = rest[0] if rest else "revision"
                revision = rest[1] if len(rest) > 1 else "main"
                commit = repo.at(revision)
                if commit is None and verb in ("revision", "tree"):
                    self._refuse(404, "RevisionNotFound", "Invalid rev id")
                elif verb == "revision":
                    self._say(200, described(name, repo, str(commit)))
                elif verb == "tree":
                    self._say(200, listing(repo.commits[str(commit)]))
                elif self._token() != TOKEN:
                    self._refuse(403, "Forbidden", "this token may only read")
                elif verb == "preupload":
                    self._modes()
                elif verb == "commit":
                    self._commit(name, repo)
                else:
                    self._refuse(404, "NotFound", "no such route")

        def _token(self) -> str:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

        def _seen(self, kind: str, name: str) -> Repo | None:
            """The repository, where it is there and may be seen; else the hub's answer is given."""
            repo, known = hub.repos.get((kind, name)), self._token() in (TOKEN, READER)
            if repo is None or (repo.private and not known):
                self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
                return None
            if repo.gated:
                self._refuse(403, "GatedRepo", "Access is restricted")
                return None
            return repo

        def _create(self) -> None:
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            if self._token() != TOKEN or asked["organization"] == "others":
                self._refuse(403, "Forbidden", "you may not create a repository there")
            elif ("models", name) in hub.repos:
                self._refuse(409, "Conflict", "You already created this model repo")
            else:
                repo = hub.repos["models", name] = Repo(asked["visibility"] == "private")
                repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
                self._say(200, {"url": f"{hub.url}/{name}"})

        def _modes(self) -> None:
            """Weights are large, whatever their size, as the real hub's .gitattributes say."""
            files = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(self.body)["files"]
            ]  # fmt: skip
            self._say(200, {"files": files})

        def _batch(self) -> None:
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(self.body)["objects"]
            ]
            self._say(200, {"transfer": "basic", "objects": objects})

        def _commit(self, name: str, repo: Repo) -> None:
            lines = [json.loads(line) for line in self.body.splitlines()]
            header = lines[0]["value"]
            hub.last = header
            if header.get("parentCommit") not in (None, repo.refs["main"]):
                self._refuse(412, "Precondition", "the branch moved")
                return
            files = dict(repo.commits[repo.refs["main"]])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "deletedFile":
                    del files[value["path"]]
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                else:
                    files[value["path"]] = base64.b64decode(value["content"])
            made = repo.commit(files)
            self._say(200, {"commitUrl": f"{hub.url}/{name}/commit/{made}", "commitOid": made})

        def _file(self, parts: list[str]) -> None:
            kind, parts = (parts[0], parts[1:]) if parts[0] == "datasets" else ("models", parts)
            repo = self._seen(kind, "/".join(parts[:2]))
            if repo is None:
                return
            commit = repo.at(parts[3])
            content = repo.commits.get(commit or "", {}).get("/".join(parts[4:]))
            if content is None:
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            self.send_response(200)
            self.send_header("ETag", f'"{sha1(content)}"')
            self.send_header("X-Repo-Commit", str(commit))
            self._body(content)

        def _refuse(self, status: int, code: str, said: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", said)
            self._body(b"{}")

        def _say(self, status: int, value: Any) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self._body(json.dumps(value).encode())

        def _body(self, content: bytes) -> None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def described(name: str, repo: Repo, commit: str) -> dict[str, Any]:
    files = [{"rfilename": path} for path in repo.commits[commit]]
    return {"id": name, "modelId": name, "sha": commit, "private": repo.private, "tags": [],
            "siblings": files, "downloads": 0, "likes": 0}  # fmt: skip


def listing(files: Files) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": path, "size": len(content), "oid": sha1(content)}
        for path, content in files.items()
    ]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def standing_in(cache: Path, *, token: str | None = TOKEN) -> Iterator[Hub]:
    """The stand-in, in the place of the hub for this process; what is fetched goes to `cache`."""
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # it is git-lfs here
        patch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        if token is None:
            patch.delenv("HF_TOKEN", raising=False)
        else:
            patch.setenv("HF_TOKEN", token)
        yield hub


def environment(hub: Hub, home: Path) -> Mapping[str, str]:
    """What tells another process of the stand-in."""
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
