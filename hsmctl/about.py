# SPDX-License-Identifier: Apache-2.0
"""What the service says of itself: settings, session, capabilities, a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hsmctl.fields import facts
from hsmctl.output import Cell, Facts, Pieces, Styled, Table, View
from hsmctl.shown import Shown
from hsmctl.values import show_duration
from libvdsm.api import VERBS
from libvdsm.api.config import Settings
from libvdsm.api.host import Capabilities, PingInfo
from libvdsm.api.session import SessionInfo


def _settings(settings: Settings, _: Shown) -> View:
    rows: list[list[Cell]] = [
        [
            f"{item.section}.{item.key}",
            item.value if item.value == item.default else Styled(item.value, "yellow"),
            "-" if item.value == item.default else item.default,
            " ".join(item.description.split()),
        ]
        for item in settings.items
    ]
    source: list[View] = [f"Read from {settings.file}."] if settings.file else ["No file was read."]
    return Pieces([Table(["SETTING", "VALUE", "DEFAULT, IF OTHER", "MEANING"], rows), *source])


def _session(session: SessionInfo, _: Shown) -> View:
    every = len(session.verbs) == len(VERBS)
    pieces = facts(session, without=("verbs",) if every else ())
    return pieces if not every else Pieces([pieces, "All verbs may be called."])


def _capabilities(able: Capabilities, _: Shown) -> View:
    lacking = sorted(set(VERBS) - set(able.verbs))
    newer = sorted(set(able.verbs) - set(VERBS))
    verbs: list[tuple[str, Cell | None]] = [
        ("Verbs", f"{len(able.verbs)}, all that this hsmctl knows" if not lacking else str(len(able.verbs))),
        ("Lacking", ", ".join(lacking) or None),
        ("Newer", ", ".join(newer) or None),
    ]
    return Pieces([facts(able, without=("verbs",)), Facts(verbs)])


def _ping(ping: PingInfo, _: Shown) -> View:
    apart = abs(time.time() - ping.time)
    note = f"; its clock is {show_duration(apart)} apart" if apart > 2 else ""
    return f"The service answers{note}."


LOOKS: dict[type, Callable[[Any, Shown], View]] = {
    Settings: _settings,
    SessionInfo: _session,
    PingInfo: _ping,
    Capabilities: _capabilities,
}
