# SPDX-License-Identifier: Apache-2.0
"""A client over any transport.

The attributes of ``Client`` are implementations of the API's abstract classes, made from the records; so a type
checker knows every verb, and nothing here knows one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, cast

import msgspec

from libvdsm.api import CLASSES, ERRORS, VERBS, Api
from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.types import ErrorInfo, TaskId, TaskInfo, TaskState
from libvdsm.client.listening import Events
from libvdsm.client.prepared import read
from libvdsm.declare import ApiError, Verb, error_fields
from libvdsm.log import request_id

T = TypeVar("T")

ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED)


@dataclass(eq=False)
class RemoteError(ApiError):
    """An error that this client does not know: the service is newer."""

    name: str
    number: int
    text: str

    @property
    def message(self) -> str:
        return self.text


class Transport(Protocol):
    """Carries one call at a time to a service.  Used by one thread at a time, or locks."""

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        """Send a call; give the decoded result, or raise the error.  ``task``: the id of the task that it makes."""

    def events(self, after: int | None) -> Events:
        """Events as they happen, on a connection of their own."""

    def close(self) -> None:
        """End the connection."""


def to_exception(error: ErrorInfo) -> ApiError:
    """The declared error that travelled as data; one newer than this client becomes ``RemoteError``."""
    cls = ERRORS.get(error.name)
    if cls is not None:
        fields = error_fields(cls)
        names = {_wire(name): name for name in fields}
        known = {names[wire]: value for wire, value in error.data.items() if wire in names}
        try:
            return cls(**{name: msgspec.convert(value, fields[name]) for name, value in known.items()})
        except (TypeError, msgspec.ValidationError):
            pass
    return RemoteError(error.name, error.code, error.message)


def _wire(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


class Client(Api):
    """The API over a transport.  Close it, or use it in a ``with`` statement."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        for name, cls in CLASSES.items():
            setattr(self, name.lower(), _implementation(cls)(transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def wait(
        self,
        task: TaskInfo[T],
        *,
        timeout: float | None = None,
        on_progress: Callable[[TaskInfo[Any]], None] | None = None,
    ) -> T:
        """Wait for a task's end and give its result; raise its error if it failed or was stopped.

        ``timeout`` in seconds, None for ever; beyond it, ``TimeoutError``.  ``on_progress`` is called with the task
        some times a second.
        """
        until = None if timeout is None else time.monotonic() + timeout
        current: TaskInfo[Any] = task
        while current.state not in ENDED:
            if on_progress is not None:
                on_progress(current)
            slice_ = 0.2 if on_progress is not None else 30.0
            if until is not None:
                slice_ = min(slice_, until - time.monotonic())
                if slice_ <= 0:
                    msg = f"task {task.id} has not ended within {timeout} s"
                    raise TimeoutError(msg)
            current = self.task.wait(task=task.id, timeout=slice_)
        if on_progress is not None:
            on_progress(current)
        return cast("T", result_of(current))

    def with_task(self, task: TaskId) -> Client:
        """The same client, whose next task has an id that you chose.

        In the transparent mode every call of a verb that makes a task brings an id; the same call with the same id
        is the same task.  The connection stays this client's, and closing the other closes nothing.

        >>> client.session.open(task_mode=TaskMode.TRANSPARENT, owner=my_name)
        >>> client.with_task(task).image.create(domain=domain, capacity=2**30)
        """
        return Client(_Naming(self._transport, str(task)))

    def listen(self, after: int | None = None) -> Events:
        """Events as they happen, from now on or after a sequence; ends when the connection does.

        Uses a connection of its own, so calls go on meanwhile.  Listening has begun when this returns, and ``missed``
        of what it returns says whether events after that sequence are lost: then look at everything anew.
        """
        return self._transport.events(after)


class _Naming:
    """A transport whose calls of verbs that make tasks bring a task's id."""

    def __init__(self, transport: Transport, task: str) -> None:
        self._transport = transport
        self._task = task
        self.events = transport.events

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        return self._transport.call(verb, params, descriptors, request, self._task if verb.makes_task else task)

    def close(self) -> None:
        """The connection is another's."""


def result_of(task: TaskInfo[Any]) -> Any:
    """The result of a task that has ended, or its error."""
    if task.error is not None:
        raise to_exception(task.error)
    verb = VERBS.get(task.verb)
    # Of a verb that is newer than this client, the result stays as it travelled.
    return read("task", verb.full, task.result) if verb else task.result


@functools.cache
def _implementation(cls: type) -> Callable[[Transport], Any]:
    methods: dict[str, Any] = {"__init__": _init}
    for verb in VERBS.values():
        if verb.cls == cls.__name__:
            methods[verb.method] = _method(verb)
    return cast("Callable[[Transport], Any]", type(f"{cls.__name__}Client", (cls,), methods))


def _init(self: Any, transport: Transport) -> None:
    self.transport = transport


def _method(verb: Verb) -> Callable[..., Any]:
    wires = {p.name: p.wire for p in verb.parameters}

    def call(self: Any, **given: Any) -> Any:
        for name in given:
            if name not in wires:
                msg = f"{verb.full} has no parameter {name!r}"
                raise TypeError(msg)
        descriptors: list[int] = []
        for name in verb.descriptors:
            if given.get(name) is not None:
                descriptors.append(given[name])
                given[name] = len(descriptors) - 1
        params = {wires[name]: value for name, value in given.items() if value is not None}
        request = request_id.get()
        return self.transport.call(verb, params, descriptors, None if request == "-" else request)

    call.__name__ = verb.method
    call.__doc__ = verb.doc
    return call


def unreachable(address: str, error: Exception) -> ConnectionFailed:
    """The error for a service that cannot be reached."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConnectionFailed(address=address, reason=reason)
