# SPDX-License-Identifier: Apache-2.0
"""The audit log as a table.

What it tells of may be gone, and its name with it: then the record of the call that made it says the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from hsmctl.fields import state
from hsmctl.names import named_by
from hsmctl.output import Cell, Pieces, Table, View
from hsmctl.shown import Shown
from hsmctl.tables import command, ids
from hsmctl.values import show_time
from libvdsm.api.audit import AuditPage, AuditRecord

UNRECORDED = "Nothing is recorded."
"""Also where conditions were given: it is true of what was asked for."""
_LOOKED_UP = 10
"""Images that are gone, and are looked up in the whole log: each takes some milliseconds."""


def history(page: AuditPage, shown: Shown) -> View:
    """Records, the newest first."""
    domains = shown.names.domain_names() if page.items else {}
    names = _names(page, shown, domains)
    brief = ids(id_ for record in page.items for id_ in _objects(record))
    several = len({record.domain for record in page.items if record.domain}) > 1
    rows = []
    for record in page.items:
        row: list[Cell] = [
            show_time(record.time),
            record.user,
            command(record.verb),
            _what(record, names, brief),
            state(record.outcome),
            record.error or "-",
        ]
        domain = record.domain
        rows.append([*row, domains.get(domain, brief[domain]) if domain else "-"] if several else row)
    headings = ["TIME", "USER", "COMMAND", "WHAT", "OUTCOME", "ERROR"] + ["DOMAIN"] * several
    table = Table(headings, rows, empty=UNRECORDED)
    return Pieces([table, "Older ones: `hsmctl audit list`."]) if page.next else table


def _names(page: AuditPage, shown: Shown, domains: dict[UUID, str]) -> dict[UUID, str]:
    """What things are called, or were; the last word is the service's."""
    names: dict[UUID, str] = {}
    for record in page.items:
        if record.image and (name := named_by(record)):
            names.setdefault(record.image, name)
        elif record.verb == "Domain.create" and record.domain and "name" in record.params:
            names.setdefault(record.domain, str(record.params["name"]))
    for domain in {record.domain for record in page.items if record.image}:
        if domain is not None and domain in domains:
            names |= shown.names.image_names(domain)
    gone = list(dict.fromkeys(record.image for record in page.items if record.image and record.image not in names))
    for image in gone[:_LOOKED_UP]:
        if name := shown.names.former_image_name(image):
            names[image] = name
    return names | domains


def _objects(record: AuditRecord) -> list[UUID]:
    return [id_ for id_ in (record.domain, record.image, record.volume) if id_ is not None]


def _what(record: AuditRecord, names: Mapping[UUID, str], brief: Mapping[UUID, str]) -> str:
    """What it is about, in the narrowest word for it."""
    of_volume = record.verb.startswith("Volume.") and record.volume is not None
    about = record.image or (None if of_volume else record.domain)
    words = [names.get(about) or brief[about]] if about else []
    if of_volume and record.volume is not None:
        words.append(f"volume {brief[record.volume]}")
    if record.verb == "Image.snapshot" and "name" in record.params:
        words.append(str(record.params["name"]))
    rest = next((str(record.params[name]) for name in ("name", "path", "task") if name in record.params), "-")
    return ", ".join(words) or rest
