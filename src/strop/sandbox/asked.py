"""The referee's view of a candidate: it answers calls with data."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.sandbox.suites.names import MODULES
from strop.sandbox.values.codec import (
    BROKEN,
    Codec,
    ForeignError,
    NotPlainError,
    TooMuchError,
    receive,
    send,
)
from strop.sandbox.values.raised import StoppedError, rebuild
from strop.sandbox.values.remote import (
    MAKES,
    METHOD,
    Remote,
    Role,
    UnjudgedError,
    derived,
    host_of,
    number_of,
    role_of,
)


class CandidateError(Exception):
    """The candidate's code raised, ended, or answered with something other than plain data."""


@dataclass(frozen=True, slots=True)
class Meant:
    """The roles that the tests give to the candidate's names.

    Args: classes: names that the tests call, or may call, to make objects. errors: exceptions that
    the tests catch, by name, as stand-in classes.
    """

    classes: Mapping[str, Role] = field(default_factory=dict)
    errors: Mapping[str, type[BaseException]] = field(default_factory=dict)


class Missing:
    """A name that the candidate's code lacks."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise CandidateError(f"its code has no {self._name!r}")

    def __getattr__(self, name: str) -> Any:
        raise CandidateError(f"its code has no {self._name!r}")


class Candidate(Codec):
    """A running candidate.

    Args: link: the socket to it. unjudged: called with the reason if the tests cannot be judged.
    """

    def __init__(
        self,
        link: socket.socket,
        meant: Meant = Meant(),
        unjudged: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.link, self._meant, self._unjudged = link, meant, unjudged
        self._role: Role = "answer"
        self.called, self.lacks = False, False
        """Whether the tests have called it; whether its code lacks a name that they use."""
        self.starts: Callable[[], object] = lambda: None
        """Called before the first question of the tests."""

    def load(self, code: str) -> None:
        """Run the top level of its code. Raises `CandidateError` if that fails."""
        try:
            self._question({"code": code, "program": False})
        except Exception as error:  # noqa: BLE001 - any error it chose to raise
            raise CandidateError(f"its code fails: {type(error).__name__}: {error}") from None
        except SystemExit:
            raise CandidateError("its code exits") from None

    def names(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of these names in its code: data, or proxies of objects that stay with it."""
        wanted = sorted(names)
        try:
            found = self._question(["names", wanted])
        except Exception as error:  # noqa: BLE001 - it may raise anything
            raise CandidateError(f"{type(error).__name__}: {error}") from None
        if not isinstance(found, dict):
            raise CandidateError("the candidate answered with no answer")
        self.lacks = not found.keys() >= set(wanted)
        return {name: self._as_meant(name, found) for name in wanted}

    def _as_meant(self, name: str, found: Mapping[Any, Any]) -> Any:
        if name in self._meant.errors:
            return self._meant.errors[name]
        value = found.get(name, Missing(name))
        role = self._meant.classes.get(name)
        if role is not None and type(value) is Remote:
            return Remote(self, number_of(value), name, role)
        return value

    def call(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        """The plain data a function of the candidate returns.

        Raises the candidate's exception if Python or its library defines it, `CandidateError` if
        the candidate ended or returned no plain data, and `NotPlainError` for arguments that cannot
        be sent.
        """
        return self.ask(["call", name, list(args), dict(kwargs)])

    def ask(self, order: list[Any]) -> Any:
        """The candidate's answer to a request of the tests."""
        if not self.called:
            self.starts()
        is_call = order[0] == "call" and type(order[1]) is Remote
        self._role = MAKES.get(role_of(order[1]), "answer") if is_call else "answer"
        try:
            return self._question(order)
        except TooMuchError as error:
            if not self.called:
                self.leave_unjudged(f"the tests pass something that cannot be sent: {error}")
            # an earlier answer, sent back, may be what is too long or too deep
            raise CandidateError(str(error)) from None
        except ForeignError as error:
            raise CandidateError(str(error)) from None
        except NotPlainError as error:
            self.leave_unjudged(f"the tests pass something that cannot be sent: {error}")
        finally:
            self.called = True

    def leave_unjudged(self, why: str) -> None:
        self._unjudged(why)
        raise UnjudgedError(why)

    def _question(self, order: Any) -> Any:
        try:
            send(self.link.fileno(), order, self)
            answer = self._answer()
        except (EOFError, OSError) as error:
            raise CandidateError(f"the candidate ended before it answered ({error})") from None
        match answer:
            case {"value": value}:
                return value
            case {"error": description}:
                raise self._raised(description, is_next=order[:2] == ["op", "next"]
                                   if isinstance(order, list) else False)  # fmt: skip
        raise CandidateError("the candidate answered with no answer")

    def _answer(self) -> Any:
        try:
            return receive(self.link.fileno(), self)
        except NotPlainError as error:
            raise CandidateError(str(error)) from None

    def _raised(self, description: Any, is_next: bool) -> BaseException:
        try:
            built = rebuild(description, self._meant.errors)
        except BROKEN as error:
            return CandidateError(f"an exception that cannot be read: {type(error).__name__}")
        if is_next and type(built) is StoppedError:
            return StopIteration(*built.args)
        return built or CandidateError(str(description["said"]))

    # --- objects that do not cross ---

    def pack_other(self, value: Any) -> Any:
        if type(value) is Remote:
            if host_of(value) is self:
                return {"object": number_of(value)}
            raise ForeignError("an object of the code's own class, for a helper of the prompt")
        return self.pack_base(value)

    def unpack_other(self, tag: str, content: Any) -> Any:
        if tag == "method":
            return METHOD
        if tag == "module" and content in MODULES.values():
            return importlib.import_module(content)
        if tag == "object":
            return self._object(*content)
        return super().unpack_other(tag, content)

    def _object(self, number: Any, kind: Any, base: Any) -> Any:
        if type(number) is not int or type(kind) is not str:
            raise ValueError("no object")
        remote = Remote(self, number, kind, self._role, based=base is not None)
        if base is None or self._role != "answer":
            return remote
        return derived(kind, self.unpack(base), remote)
