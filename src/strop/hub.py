"""The model hub: names and revisions become folders and commits, files become a repository.

Everything here goes through `huggingface_hub`, which reads the address (`HF_ENDPOINT`), the token
(`HF_TOKEN`, or what `hf auth login` kept) and the cache (`HF_HUB_CACHE`) from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from strop.errors import HubError

COMMIT = re.compile("[0-9a-f]{40}")
"""A revision that cannot move."""

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""`org/name`, as the hub writes it."""

DESCRIBING = ("*.json", "*.jinja", "*.model", "*.tiktoken", "vocab*", "merges.txt", "spiece*")
"""Files at the top of a model repository that describe it: configs, tokenizer, chat template."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CODE = ("*.py",)

Kind = Literal["model", "dataset"]


def fetched(name: str, revision: str | None, *, weights: bool = True, code: bool = False) -> Path:
    """The folder of a hub model in the cache, `.../snapshots/<commit>`; what it lacks is fetched.

    `revision` is a branch, a tag or a commit, by default the main branch. Files in sub-folders and
    weights that are no safetensors are left where they are; `code` fetches the model's own code.
    Raises `HubError` for a name or revision that the hub does not have or give, and where neither
    hub nor cache has it.
    """
    wanted = [*DESCRIBING, *(WEIGHTS if weights else ()), *(CODE if code else ())]
    unwanted = ["*/*", *(() if weights else WEIGHTS)]
    with _said(name, revision):
        found = _api().snapshot_download(
            name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted
        )
    return Path(found)


def in_cache(folder: Path) -> tuple[str, str] | None:
    """Name and commit of a model's folder in a cache: `("org/name", "3f9a...")` of
    `models--org--name/snapshots/3f9a...`; `None` for any other folder."""
    home = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not home.startswith("models--"):
        return None
    if not COMMIT.fullmatch(folder.name):
        return None
    return home.removeprefix("models--").replace("--", "/"), folder.name


def commit_of(name: str, revision: str | None, kind: Kind) -> str:
    """The commit that a revision stands for now. One that is a commit already is not asked for."""
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    with _said(name, revision):
        return str(_api().repo_info(name, revision=revision, repo_type=kind).sha)


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository as it is: `Repository("ada/algebra", private=True, commit="3f9a...",
    files=("config.json", "model.safetensors"))`."""

    name: str
    private: bool
    commit: str
    files: tuple[str, ...]


def expect_token() -> None:
    """Raise `HubError` where no token is set, without which nothing can be written."""
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise HubError(
            "there is no token for the hub",
            fix="set HF_TOKEN to one that may write, or run `hf auth login`",
        )


def repository(name: str) -> Repository | None:
    """A model repository; `None` where there is none that the token may see."""
    import huggingface_hub.errors

    with _said(name, None):
        try:
            found = _api().model_info(name)
        except huggingface_hub.errors.GatedRepoError:
            raise
        except huggingface_hub.errors.RepositoryNotFoundError as error:
            if error.response.status_code == 401:
                raise HubError(
                    "the hub does not know the token",
                    where=name,
                    fix="set HF_TOKEN to one of yours, or run `hf auth login`",
                ) from None
            return None
    files = tuple(sorted(file.rfilename for file in found.siblings or ()))
    return Repository(name, bool(found.private), str(found.sha), files)


def create(name: str, *, private: bool) -> None:
    """A new, empty model repository; raises `HubError` where one came into being meanwhile."""
    with _said(name, None):
        _api().create_repo(name, private=private)


def upload(
    name: str,
    files: Mapping[str, Path | bytes],
    *,
    remove: Sequence[str],
    message: str,
    onto: str | None,
) -> str:
    """One commit that adds these files and removes others; returns its hash.

    With `onto` the hub refuses the commit if its main branch is no longer at that one.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [CommitOperationDelete(path) for path in remove]
    operations += [
        CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
        for path, content in files.items()
    ]
    with _said(name, None):
        made = _api().create_commit(
            name, operations=operations, commit_message=message, parent_commit=onto
        )
    return str(made.oid)


def address(name: str) -> str:
    """The page of a model: `https://huggingface.co/ada/algebra`."""
    return f"{_api().endpoint}/{name}"


def of_a_model(file: str) -> bool:
    """Whether a file is read where a model is loaded: weights, configs, tokenizer, template."""
    return "/" not in file and any(fnmatchcase(file, kind) for kind in (*DESCRIBING, *WEIGHTS))


def _api() -> Any:
    import huggingface_hub

    return huggingface_hub.HfApi(library_name="strop")


@contextmanager
def _said(name: str, revision: str | None) -> Iterator[None]:
    """What the hub's client raises, as one message with its fix."""
    from huggingface_hub import errors

    at = name if revision is None else f"{name} at {revision}"
    try:
        yield
    except errors.HFValidationError as error:
        raise HubError(
            f"is no name of the hub: {_short(error)}",
            where=at,
            fix="write org/name; a folder begins with ./ or /",
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(
            "the hub has no such revision",
            where=at,
            fix="give a branch, a tag or a commit of the repository",
        ) from None
    except errors.GatedRepoError:
        raise HubError(
            "the hub asks for its conditions to be accepted",
            where=at,
            fix=f"accept them at {address(name)}, and set HF_TOKEN",
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            "the hub has no such repository, or the token (if there is one) may not see it",
            where=at,
            fix="check the name; for a private one set HF_TOKEN, or run `hf auth login`",
        ) from None
    except errors.HfHubHTTPError as error:
        raise _answered(error, at) from None
    except (errors.HTTPError, OSError) as error:
        raise HubError(
            f"the hub cannot be reached: {_short(error)}",
            where=at,
            fix="check the connection and HF_ENDPOINT; a folder on this machine, or a commit that "
            "the cache holds, needs no hub",
        ) from None


def _answered(error: Any, at: str) -> HubError:
    """The message of an answer that is an error; `at` is what was asked for."""
    status = error.response.status_code
    said = error.server_message or str(error)
    fixes = {
        401: "set HF_TOKEN to a token that the hub knows, or run `hf auth login`",
        403: "use a token that may write there, or a name of your own",
        409: "run the command again: it looks at what is there now",
        412: "run the command again: somebody else wrote meanwhile",
    }
    return HubError(
        f"the hub refuses ({status}): {_short(said)}",
        where=at,
        fix=fixes.get(status, "try again later"),
    )


def _short(said: object) -> str:
    """What an error says, on one line."""
    return " ".join(str(said).split())[:200]
