# SPDX-License-Identifier: Apache-2.0
"""One way to log, for all processes: an event in plain words, and its facts as ``key=value``.

Lines are for people by default and JSON where a machine reads them.  Each carries the id of the request that it
belongs to, which travels with a request through all processes and into the tasks it starts.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
import time
from typing import Any, TextIO

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
"""The request that the present thread works for."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Nothing here prints where in the code a line came from, and finding that out is most of a record's cost.
logging._srcfile = None  # noqa: SLF001  documented in the logging how-to
logging.logThreads = False
logging.logProcesses = False
logging.logMultiprocessing = False


def new_request_id() -> str:
    """Short enough to read out, long enough not to meet again in a log."""
    return os.urandom(6).hex()


class Log:
    """A named source of log lines."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    @property
    def debugs(self) -> bool:
        """Whether ``debug`` does anything, for those to whom finding out the facts is dear."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **facts: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"facts": facts})

    def info(self, event: str, /, **facts: Any) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra={"facts": facts})

    def warning(self, event: str, /, **facts: Any) -> None:
        self._logger.warning(event, extra={"facts": facts})

    def error(self, event: str, /, **facts: Any) -> None:
        self._logger.error(event, extra={"facts": facts})

    def exception(self, event: str, /, **facts: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._logger.error(event, exc_info=True, extra={"facts": facts})


def _plain(value: Any) -> str:
    text = str(value)
    if not text.isprintable():
        # Line ends of any kind, what a terminal would obey, and bytes that are no text.
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=') else text


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        facts = getattr(record, "facts", {})
        tail = "".join(f" {key}={_plain(value)}" for key, value in facts.items() if value is not None)
        line = (
            f"{moment}.{int(record.msecs):03d} {record.levelname:<7} [{request_id.get()}] "
            f"{record.name}: {record.getMessage()}{tail}"
        )
        if not record.exc_info:
            return line
        # Indented, so that nothing in the text of an exception looks like a line of its own.
        return "\n    ".join([line, *self.formatException(record.exc_info).splitlines()])


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": record.created,
            "level": record.levelname.lower(),
            "request": request_id.get(),
            "source": record.name,
            "event": record.getMessage(),
            **{key: value for key, value in getattr(record, "facts", {}).items() if value is not None},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def setup(*, level: str = "info", style: str = "text", file: str = "", stream: TextIO | None = None) -> None:
    """Begin to log, to a file or to a stream (standard error by default).  Called once by each program."""
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
