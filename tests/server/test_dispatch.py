# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: nothing reaches a service unchecked, and only declared errors leave one."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hsm.app import SERVICES, App
from hsm.services.image import ImageService
from libvdsm.api import CLASSES, VERBS
from libvdsm.api.errors import (
    COMMON,
    InternalError,
    NoSuchImage,
    NoSuchTask,
    Unavailable,
)
from libvdsm.api.host import PingInfo
from libvdsm.api.types import DomainId, ImageId, TaskId
from libvdsm.declare import ApiError, Right, compare_signatures
from libvdsm.server.caller import Caller, Connection
from libvdsm.server.dispatch import Dispatcher, Sessions
from libvdsm.wire.messages import Call, Reply
from tests.server.samples import CHANGING, good_params


def connection(right: Right = Right.ADMINISTER) -> Connection:
    return Connection("test", "a test", right)


class Stub:
    """A service whose every verb does the same."""

    def __init__(self, does: Callable[[], Any]) -> None:
        self.does = does
        self.callers: list[Caller] = []
        self.called: list[str] = []

    def __call__(self, caller: Caller) -> Stub:
        self.callers.append(caller)
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(**params: Any) -> Any:
            self.called.append(name)
            return self.does()

        return method


def serving(stub: Stub) -> Dispatcher:
    return Dispatcher(dict.fromkeys(CLASSES, stub), {}, Sessions(60))


def answer(does: Callable[[], Any], verb: str = "Host.ping", **params: Any) -> Reply:
    return serving(Stub(does)).answer(Call(verb, params, id=7), connection())


def raising(error: BaseException) -> Callable[[], Any]:
    def does() -> Any:
        raise error

    return does


def test_a_call_is_answered_with_what_the_service_returns() -> None:
    info = PingInfo(time=1.0)
    assert answer(lambda: info) == Reply(7, result=info)


def test_parameters_may_come_as_json_or_as_plain_values() -> None:
    stub = Stub(lambda: None)
    task = str(uuid.uuid4())
    for params in ({"task": task}, msgspec.Raw(b'{"task": "%s"}' % task.encode())):
        assert serving(stub).answer(Call("Task.getInfo", params), connection()).error is None
    assert stub.called == ["get_info", "get_info"]


def test_there_is_no_verb_but_the_declared_ones() -> None:
    for verb in (
        "Host.nonsense",
        "host.ping",
        "Host.ping ",
        "Host",
        "",
        "Host.__init__",
        "Host.get_stats",
        "x" * 10_000,
    ):
        reply = answer(lambda: None, verb)
        assert reply.error is not None
        assert reply.error.name == "NoSuchVerb"
        assert len(reply.error.message) < 300


def test_a_declared_error_reaches_the_caller() -> None:
    task = TaskId(uuid.uuid4())
    reply = answer(raising(NoSuchTask(task=task)), "Task.getInfo", task=str(task))
    assert reply.error is not None
    assert (reply.error.name, reply.error.code, reply.error.data) == (
        "NoSuchTask",
        NoSuchTask.code,
        {"task": str(task)},
    )
    assert str(task) in reply.error.message


@pytest.mark.parametrize("error", COMMON, ids=lambda error: error.__name__)
def test_so_do_those_that_every_verb_may_raise(error: type[ApiError]) -> None:
    values = {"session": uuid.uuid4(), "task": uuid.uuid4(), "grace": 1.0}
    fields = {field: values.get(field, "x") for field in error.__dataclass_fields__}  # type: ignore[attr-defined]
    reply = answer(raising(error(**fields)))
    assert reply.error is not None
    assert reply.error.name == error.__name__


@pytest.mark.parametrize(
    "error",
    [
        NoSuchImage(domain=DomainId(uuid.uuid4()), image=ImageId(uuid.uuid4())),
        NoSuchTask(task=TaskId(uuid.uuid4())),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_the_verb_does_not_declare_is_internal_and_logged(error: ApiError, logged: io.StringIO) -> None:
    reply = answer(raising(error))
    assert reply.error is not None
    assert reply.error.name == "InternalError"
    line = next(line for line in logged.getvalue().splitlines() if "undeclared error" in line)
    assert f"[{reply.error.data['request']}]" in line
    assert type(error).__name__ in line
    assert "Host.ping" in line


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by zero"), OSError(5, "bad disk"), KeyError("x"), RecursionError()]
)
def test_anything_else_is_internal_too_and_logged_with_its_traceback(error: Exception, logged: io.StringIO) -> None:
    reply = answer(raising(error))
    assert reply.error is not None
    assert reply.error.name == "InternalError"
    assert str(error) not in reply.error.message or not str(error)
    text = logged.getvalue()
    assert f"[{reply.error.data['request']}] libvdsm.dispatch: call failed verb=Host.ping" in text
    assert "Traceback" in text
    assert type(error).__name__ in text


def test_the_request_of_an_internal_error_is_the_callers_own_if_it_gave_one() -> None:
    reply = serving(Stub(raising(ValueError()))).answer(Call("Host.ping", {}, request="from-me.1:2"), connection())
    assert reply.error is not None
    assert reply.error.data == {"request": "from-me.1:2"}


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "a\nb", "a]b", "é", "a\0"])
def test_a_request_id_that_could_forge_a_log_is_replaced(request_id: str) -> None:
    stub = Stub(lambda: None)
    serving(stub).answer(Call("Host.ping", {}, request=request_id), connection())
    assert stub.callers[0].request != request_id
    assert stub.callers[0].request.isalnum()


def test_every_changing_call_is_logged_with_its_caller_and_outcome(logged: io.StringIO) -> None:
    for does in (lambda: None, raising(Unavailable(reason="full"))):
        answer(does, "Task.clear", task=str(uuid.uuid4()))
    lines = [line for line in logged.getvalue().splitlines() if ": call " in line]
    assert all(" INFO " in line and 'verb=Task.clear user="anonymous@a test"' in line for line in lines)
    assert [line.endswith("error=Unavailable") for line in lines] == [False, True]


def test_a_service_is_made_for_each_call_and_knows_its_caller() -> None:
    stub = Stub(lambda: None)
    dispatcher, caller = serving(stub), connection()
    for _ in range(2):
        dispatcher.answer(Call("Host.ping", {}), caller)
    assert [made.connection for made in stub.callers] == [caller, caller]
    assert stub.callers[0].request != stub.callers[1].request
    assert dispatcher.calls == 2


@pytest.mark.parametrize("verb", CHANGING, ids=lambda verb: verb.full)
@pytest.mark.parametrize("right", [Right.READ, Right.OPERATE], ids=lambda right: right.name.lower())
def test_who_lacks_the_right_never_reaches_the_service(verb: Any, right: Right) -> None:
    stub = Stub(lambda: None)
    reply = serving(stub).answer(Call(verb.full, good_params(verb)), connection(right))
    if verb.declaration.right <= right:
        assert reply.error is None
        return
    assert reply.error is not None
    assert reply.error.name == "AccessDenied"
    assert reply.error.data == {
        "user": "anonymous@a test",
        "verb": verb.full,
        "right": verb.declaration.right.name.lower(),
    }
    assert stub.callers == []


def test_who_lacks_the_right_is_told_so_before_anything_about_parameters() -> None:
    reply = serving(Stub(lambda: None)).answer(Call("Image.create", {"nonsense": 1}), connection(Right.READ))
    assert reply.error is not None
    assert reply.error.name == "AccessDenied"


@pytest.mark.parametrize("verb", [v for v in VERBS.values() if v not in CHANGING], ids=lambda verb: verb.full)
def test_who_may_read_may_call_everything_that_only_reads(verb: Any) -> None:
    assert serving(Stub(lambda: None)).answer(Call(verb.full, good_params(verb)), connection(Right.READ)).error is None


def test_a_service_that_differs_from_its_declaration_does_not_start() -> None:
    class Image(ImageService):
        def delete(self, *, domain: Any, image: Any, wipe: bool = True) -> Any: ...

        def prepare(self, *, domain: Any, image: Any) -> Any: ...  # type: ignore[override]

    with pytest.raises(TypeError) as caught:
        Dispatcher({"Image": Stub(lambda: None)}, {"Image": Image}, Sessions(60))
    assert str(caught.value) == "Image.prepare lacks read_only; Image.delete: default of wipe differs"


@pytest.mark.parametrize("name", CLASSES)
def test_the_services_are_as_declared(name: str) -> None:
    assert compare_signatures(CLASSES[name], SERVICES[name]) == []


def test_every_verb_is_served(app: App) -> None:
    assert app.dispatcher.verbs == list(VERBS)


@pytest.mark.parametrize("error", [InternalError, Unavailable])
def test_internal_trouble_is_never_a_declared_error_of_a_verb(error: type[ApiError]) -> None:
    assert not [verb.full for verb in VERBS.values() if error in verb.declaration.errors]
