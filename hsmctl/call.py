# SPDX-License-Identifier: Apache-2.0
"""From a parsed command line to a call and its result on the screen."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from hsmctl import commands, failure, files, output, outside, progress
from hsmctl.codes import FAILED, INTERRUPTED, OK, UNREACHABLE
from hsmctl.commands import Argument
from hsmctl.connection import open_client
from hsmctl.failure import Refusal
from hsmctl.names import ENVIRONMENT, Names, read_all
from hsmctl.secrets import read_value
from hsmctl.shown import Shown
from hsmctl.tables import event_line
from hsmctl.values import Kind, element, parse_id, show_duration
from hsmctl.views import view
from hsmctl.waiting import patience
from libvdsm.api.domain import CheckReport
from libvdsm.api.types import TaskInfo, TaskMode, TaskState
from libvdsm.client import Client, Events
from libvdsm.declare import ApiError, Verb, bare


class Call:
    """One command, from its words to its exit status."""

    def __init__(self, client: Client, address: str, verb: Verb, words: argparse.Namespace) -> None:
        self.client = client
        self.verb = verb
        self.names = Names(client)
        self._address = address
        self._words = words
        self._json = bool(words.json)
        self._given: dict[str, Any] = {}
        self._taken_raw = False
        self._image_text: str | None = None
        """the image that the command is about, in the user's words"""

    def run(self) -> int:
        with contextlib.ExitStack() as opened:
            self._collect(opened)
            special = _SPECIAL.get(self.verb.full)
            if special is not None:
                return special(self)
            if not commands.starts_task(self.verb):
                return self.show(self._ask())
            # A command is over before its task may be, so the service owns it, however it is configured.
            self.client.session.open(task_mode=TaskMode.NON_TRANSPARENT, name="hsmctl")
            if not self._words.wait:
                return self._show_begun(self._ask())
            ended = progress.wait(self.client, self._ask)
        status = self.show(ended.result)
        if ended.interrupted:
            print("hsmctl: the task could not be stopped any more, and has succeeded", file=sys.stderr)
            return INTERRUPTED
        return status

    def show(self, result: Any) -> int:
        if self._json:
            output.show_json(result)
        else:
            output.show(view(result, Shown(self.verb, self._given, self.names, self._taken_raw)))
        return FAILED if isinstance(result, CheckReport) and not result.healthy else OK

    def _show_begun(self, task: TaskInfo[Any]) -> int:
        if self._json:
            output.show_json(task)
        else:
            print(task.id)
        return OK

    def _method(self) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(getattr(self.client, self.verb.cls.lower()), self.verb.method)
        return method

    def _ask(self) -> Any:
        paged = commands.is_paged(self.verb) and "limit" not in self._given and "start" not in self._given
        if not paged:
            return self._method()(**self._given)
        return read_all(lambda start: self._method()(**self._given, start=start))

    def _collect(self, opened: contextlib.ExitStack) -> None:
        """The parameters as the API has them: names looked up, files opened."""
        arguments = commands.arguments(self.verb)
        texts = {a.parameter.name: getattr(self._words, a.dest, None) for a in arguments}
        if any(a.kind is Kind.FILE for a in arguments):
            self._check_files(arguments, texts)
        images = [texts[a.parameter.name] for a in arguments if a.kind is Kind.IMAGE and texts[a.parameter.name]]
        if images:
            self._image_text = images[0][0] if isinstance(images[0], list) else images[0]
        given = self._given
        for argument in sorted(arguments, key=lambda a: _RANK.get(a.kind, 0)):
            value = self._value(argument, texts[argument.parameter.name])
            if value is not None:
                given[argument.parameter.name] = value
        if commands.makes_named(self.verb) and "name" in given and not self._words.allow_same_name:
            self.names.refuse_taken(
                self.verb.cls, given["name"], given.get("id"), given.get("to") or given.get("domain")
            )
        for argument in arguments:
            if argument.kind is Kind.FILE:
                name = argument.parameter.name
                given[name] = opened.enter_context(self._file(argument, str(texts[name])))
                self._look(argument, given[name], str(texts[name]))

    def _value(self, argument: Argument, text: Any) -> Any:
        if argument.many:
            return None if text is None else [self._single(argument, member) for member in text]
        return self._single(argument, text)

    def _single(self, argument: Argument, text: Any) -> Any:
        kind = argument.kind
        if kind is Kind.DOMAIN:
            wanted = text
            if commands.is_place(argument.parameter.name, kind):
                wanted = argument.parameter.required or text or os.environ.get(ENVIRONMENT)
            return (
                self.names.domain(text, self._image_text if argument.parameter.name == "domain" else None)
                if wanted
                else None
            )
        if kind is Kind.HIDDEN:
            return read_value(text) if text is not None or argument.parameter.required else None
        if text is None or kind is Kind.FILE:
            return None
        if kind is Kind.IMAGE:
            # A whole id needs no domain; where that may be left out, a name is looked for on the only one.
            whole = parse_id(text)
            return whole or self.names.image(text, self._given.get("domain") or self.names.domain(None))
        if kind is Kind.VOLUME:
            return self.names.volume(text, self._given["domain"], self._given.get("image"))
        if kind in _LOOKED_UP:
            return _LOOKED_UP[kind](self.names, text)
        if kind is Kind.CHOICE:
            return bare((element(argument.parameter) or argument.parameter).type)(text)
        if kind is Kind.PATH:
            return os.path.abspath(text) if self._is_local() else text
        return text

    def _is_local(self) -> bool:
        return self._address.startswith(("unix:", "http+unix:"))

    def _check_files(self, arguments: tuple[Argument, ...], texts: dict[str, Any]) -> None:
        for argument in arguments:
            if argument.kind is not Kind.FILE:
                continue
            text = texts[argument.parameter.name]
            reads = argument.parameter.extra.get("mode") != "write"
            if reads and "name" in texts and texts["name"] is None:
                texts["name"] = Path(text).stem
        files.check_connection(self._address)

    def _file(self, argument: Argument, text: str) -> contextlib.AbstractContextManager[int]:
        if argument.parameter.extra.get("mode") == "write":
            return files.writing(text, force=self._words.force, wait=self._words.wait)
        return files.reading(text)

    def _look(self, argument: Argument, descriptor: int, text: str) -> None:
        """At a file that is to become a disk; one that was said to be raw is taken as it is."""
        if argument.parameter.extra.get("mode") == "write" or "source_format" in self._given:
            return
        outside.refuse_no_disk(descriptor, text, otherwise=", or add --source-format raw to take the file as it is")
        self._taken_raw = outside.seems_raw(descriptor)

    def listen(self) -> int:
        """Print events until the user or the service has enough."""
        after = self._given.get("after")
        events = self.client.listen(after)
        if after == 0:
            # Whoever says so wants all that there is.
            events.missed = False
        self._tell_missed(events)
        for event in events:
            self._tell_missed(events)
            if self._json:
                output.show_json(event, lines=True)
            else:
                print(output.clean(event_line(event)))
            sys.stdout.flush()
        msg = "the service ended the connection; events end here"
        raise Refusal("ConnectionFailed", msg, status=UNREACHABLE)

    @staticmethod
    def _tell_missed(events: Events) -> None:
        """Beside the events, for those who keep something by them."""
        if events.missed:
            events.missed = False
            print(
                "hsmctl: events were missed: the service no longer keeps them; look at everything anew", file=sys.stderr
            )

    def wait_for_task(self) -> int:
        """Wait until the task has ended; with --timeout, no longer than that."""
        if "timeout" in self._given:
            task = self._method()(**self._given)
        else:
            task = progress.watch(self.client, self.client.task.get_info(task=self._given["task"]))
        self.show(task)
        if task.state not in progress.ENDED and not self._json:
            waited = show_duration(self._given["timeout"])
            print(f"hsmctl: the task has not ended within {waited}", file=sys.stderr)
        return OK if task.state is TaskState.SUCCEEDED else FAILED


_RANK = {Kind.DOMAIN: -3, Kind.IMAGE: -2, Kind.VOLUME: -1}
"""Domains first: what a name means is asked on its domain, and a snapshot's within its image."""

_LOOKED_UP: dict[Kind, Callable[[Names, str], UUID]] = {
    Kind.TASK: Names.task,
    Kind.TRANSFER: Names.transfer,
    Kind.SECRET: Names.secret,
}
"""What is known by itself, and not as a part of something else."""

_SPECIAL: dict[str, Callable[[Call], int]] = {
    "Event.subscribe": Call.listen,
    "Task.wait": Call.wait_for_task,
}


def run(verb: Verb, words: argparse.Namespace) -> int:
    """Call a verb with the words of a command line; the exit status."""
    client, address = open_client(words.connect, patience(words.connect_timeout))
    call = Call(client, address, verb, words)
    try:
        return call.run()
    except (ApiError, Refusal) as error:
        return failure.report(error, as_json=words.json, explain=call.names.explain, verb=verb)
    finally:
        client.close()
