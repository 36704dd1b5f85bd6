# SPDX-License-Identifier: Apache-2.0
"""What results look like, where that is written by hand; everything else looks as ``fields`` makes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from hsmctl.commands import in_cli_words, shown_command
from hsmctl.fields import facts, state
from hsmctl.names import short
from hsmctl.output import Cell, Facts, Pieces, Styled, Table, View
from hsmctl.shown import Shown
from hsmctl.values import parse_id, show_duration, show_size, show_size_exactly, show_time
from libvdsm.api import VERBS
from libvdsm.api.domain import CheckReport, DomainDump, DomainPage, GarbageReport, Problem
from libvdsm.api.event import EventInfo, EventPage
from libvdsm.api.image import ImagePage
from libvdsm.api.task import TaskPage
from libvdsm.api.transfer import Direction, TransferPage
from libvdsm.api.types import (
    ErrorInfo,
    ImageInfo,
    Legality,
    PreparedInfo,
    TaskInfo,
    VolumeInfo,
    VolumeRole,
)
from libvdsm.api.volume import VolumePage

_NO_DOMAINS = (
    "No domain is served. Make one with `hsmctl domain create NAME PATH`, or serve one that is there with "
    "`hsmctl domain attach PATH`."
)


def ids(items: Iterable[UUID]) -> dict[UUID, str]:
    """Ids as tables show them: short ones to people, whole ones to programs."""
    return short(items) if sys.stdout.isatty() else {id_: str(id_) for id_ in items}


def event_line(event: EventInfo) -> str:
    """An event in one line."""
    data = dict(event.data)
    if isinstance(data.get("progress"), dict):
        progress = data.pop("progress")
        data |= {"percent": f"{progress.get('percent', 0):.0f}", "step": progress.get("step", "")}
    members = " ".join(f"{key}={_flat(value)}" for key, value in data.items())
    return f"{show_time(event.time)}  {event.sequence}  {event.name:<15}  {members}"


def _flat(value: Any) -> str:
    text = str(value)
    if sys.stdout.isatty() and parse_id(text):
        return text[:8]
    return repr(text) if " " in text or not text else text


def _images(page: ImagePage, shown: Shown) -> View:
    brief = ids(image.id for image in page.items)
    names = {image.id: image.name for image in page.items}
    several = len({image.domain for image in page.items}) > 1
    damaged = any(image.damage for image in page.items)
    tagged = any(image.tags for image in page.items)
    domains = shown.names.domain_names() if several else {}
    rows = []
    for image in page.items:
        row: list[Cell] = [
            image.name or "-",
            brief[image.id],
            show_size(image.capacity),
            show_size(image.actual_size),
            str(image.snapshots),
            _kind(image, names),
            _in_use(image),
        ]
        row += [domains.get(image.domain, str(image.domain))] if several else []
        row += [", ".join(image.tags) if image.tags else "-"] if tagged else []
        row += [Styled(image.damage, "red") if image.damage else "-"] if damaged else []
        rows.append(row)
    headings = ["NAME", "ID", "SIZE", "USED", "SNAPSHOTS", "TEMPLATE", "IN USE"]
    headings += ["DOMAIN"] * several + ["TAGS"] * tagged + ["DAMAGE"] * damaged
    empty = "There are no images yet. Make one with `hsmctl image create NAME --size 64G`."
    if not page.items and not shown.names.domain_candidates():
        empty = _NO_DOMAINS
    return Table(headings, rows, frozenset({"SIZE", "USED", "SNAPSHOTS"}), empty)


def _kind(image: ImageInfo, names: Mapping[Any, str | None]) -> Cell:
    of = f"of {names.get(image.template) or image.template}" if image.template else ""
    if image.is_template:
        return Styled("template", "cyan")
    return f"clone {of}" if of else "-"


def _in_use(image: ImageInfo) -> Cell:
    if image.prepared is not None:
        return Styled("reading" if image.prepared.read_only else "writing", "yellow")
    return Styled(f"unfinished {image.pending}", "red") if image.pending else "-"


def _image(image: ImageInfo, shown: Shown) -> View:
    chain = image.chain or []
    base = chain[0] if chain and chain[0].image != image.id else None
    template = f"{base.name or '-'} ({image.template})" if base else _text(image.template)
    prepared = image.prepared
    use: Cell | None = None
    if prepared is not None:
        how = "read-only" if prepared.read_only else "for writing"
        since = show_time(prepared.since)
        use = Styled(f"{how}, since {since}, leases held by process {prepared.keeper}", "yellow")
    rows: list[tuple[str, Cell | None]] = [
        ("Name", image.name or "-"),
        ("ID", str(image.id)),
        ("Domain", f"{shown.names.domain_names().get(image.domain, '-')} ({image.domain})"),
        ("Description", image.description),
        ("Tags", ", ".join(image.tags) if image.tags else None),
        ("Size", show_size_exactly(image.capacity)),
        ("Used", show_size_exactly(image.actual_size)),
        ("Created", show_time(image.created)),
        ("Template", "yes: it can be cloned, and is never written" if image.is_template else None),
        ("Clone of", template),
        ("Encryption", shown.names.encryption(image)),
        ("Legality", None if image.legality is Legality.LEGAL else Styled(image.legality.value, "red")),
        ("Damage", Styled(image.damage, "red") if image.damage else None),
        ("Unfinished", Styled(image.pending, "red") if image.pending else None),
        ("In use here", use or "no"),
        ("Path", prepared.path if prepared else None),
        ("Format", prepared.format.value if prepared else None),
    ]
    pieces: list[View] = [Facts(rows)]
    if chain:
        pieces.append(_chain(chain))
    return Pieces(pieces)


def _chain(chain: list[VolumeInfo]) -> Table:
    """The layers of an image, each standing on the one above it."""
    brief = ids(volume.id for volume in chain)
    damaged = any(map(_trouble, chain))
    rows = []
    for depth, volume in enumerate(chain):
        tree = "   " * (depth - 1) + "└─ " if depth else ""
        row: list[Cell] = [
            tree + _layer(volume),
            brief[volume.id],
            volume.format.value,
            show_size(volume.capacity),
            show_size(volume.actual_size),
            show_time(volume.created),
        ]
        trouble = _trouble(volume)
        rows.append([*row, Styled(trouble, "red") if trouble else "-"] if damaged else row)
    headings = ["LAYER", "VOLUME", "FORMAT", "SIZE", "USED", "CREATED", *(["DAMAGE"] if damaged else [])]
    return Table(headings, rows, frozenset({"SIZE", "USED"}))


def _layer(volume: VolumeInfo) -> str:
    if volume.role is VolumeRole.LEAF:
        return "present state"
    return f"{'template' if volume.role is VolumeRole.TEMPLATE else 'snapshot'} {volume.name or '(no name)'}"


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)


def _trouble(volume: VolumeInfo) -> str:
    return volume.damage or ("" if volume.legality is Legality.LEGAL else volume.legality.value)


def _volumes(page: VolumePage, _: Shown) -> View:
    return _volume_table(page.items)


def _volume_table(volumes: Sequence[VolumeInfo]) -> Table:
    brief = ids(volume.id for volume in volumes)
    images = {v.image: v.name for v in volumes if v.role is not VolumeRole.INTERNAL}
    rows: list[list[Cell]] = [
        [
            images.get(v.image) or str(v.image),
            _layer(v),
            brief[v.id],
            v.format.value,
            v.allocation.value,
            show_size(v.capacity),
            show_size(v.actual_size),
            Styled(_trouble(v), "red") if _trouble(v) else "ok",
        ]
        for v in volumes
    ]
    headings = ["IMAGE", "LAYER", "ID", "FORMAT", "ALLOCATION", "SIZE", "USED", "STATE"]
    return Table(headings, rows, frozenset({"SIZE", "USED"}), "There are no volumes.")


def _domains(page: DomainPage, _: Shown) -> View:
    brief = ids(domain.id for domain in page.items)
    trouble = any(domain.problem for domain in page.items)
    rows: list[list[Cell]] = []
    for d in page.items:
        row: list[Cell] = [d.name or "-", brief[d.id], d.type, state(d.state), d.path]
        rows.append([*row, Styled(d.problem, "red") if d.problem else "-"] if trouble else row)
    headings = ["NAME", "ID", "TYPE", "STATE", "PATH"] + ["PROBLEM"] * trouble
    return Table(headings, rows, empty=_NO_DOMAINS)


def _tasks(page: TaskPage, _: Shown) -> View:
    brief = ids(task.id for task in page.items)
    rows: list[list[Cell]] = [
        [
            brief[task.id],
            command(task.verb),
            state(task.state),
            f"{task.progress.percent:.0f}%",
            show_time(task.created),
            _took(task),
            task.owner,
            task.error.name if task.error else "-",
        ]
        for task in page.items
    ]
    headings = ["ID", "COMMAND", "STATE", "DONE", "CREATED", "TOOK", "OWNER", "ERROR"]
    return Table(headings, rows, frozenset({"DONE", "TOOK"}), "There are no tasks.")


def command(verb: str) -> str:
    return shown_command(VERBS[verb]).removeprefix("hsmctl ") if verb in VERBS else verb


def _took(task: TaskInfo[Any]) -> str:
    return show_duration((task.ended or time.time()) - task.started) if task.started else "-"


def _task(task: TaskInfo[Any], _: Shown) -> View:
    progress = task.progress
    done = f"{progress.percent:.0f}%"
    if progress.total:
        done += f", {show_size(progress.done)} of {show_size(progress.total)}"
    if progress.step:
        done += f", {progress.step}"
    rows: list[tuple[str, Cell | None]] = [
        ("ID", str(task.id)),
        ("Command", command(task.verb)),
        ("State", state(task.state)),
        ("Progress", done),
        ("Created", show_time(task.created)),
        ("Started", show_time(task.started) if task.started else None),
        ("Ended", show_time(task.ended) if task.ended else None),
        ("Took", _took(task) if task.ended and task.started else None),
        ("Owner", task.owner),
        ("Request", task.request),
        ("Domain", _text(task.domain)),
        ("Image", _text(task.image)),
        ("Volume", _text(task.volume)),
        ("Error", Styled(_error(task.error), "red") if task.error else None),
    ]
    return Facts(rows)


def _error(error: ErrorInfo) -> str:
    return f"{in_cli_words(error.message)} ({error.name})"


def _check(report: CheckReport, shown: Shown) -> View:
    looked = f"{_count(report.images, 'image')} and {_count(report.volumes, 'volume')} looked at"
    if not report.problems:
        return Styled(f"No problems found: {looked}.", "green")
    usable, style = ("all data can be used", "yellow") if report.healthy else ("some data cannot be used", "red")
    verdict = Styled(f"{_count(len(report.problems), 'problem')}, {usable}: {looked}.", style)
    return Pieces([_problems(report.problems, shown), verdict])


def _problems(problems: Sequence[Problem], shown: Shown) -> Table:
    rows: list[list[Cell]] = [
        [
            state(problem.severity),
            problem.kind,
            problem.path or str(problem.image or problem.volume or "-"),
            in_cli_words(shown.names.explain(problem.message)),
        ]
        for problem in problems
    ]
    return Table(["SEVERITY", "KIND", "WHERE", "PROBLEM"], rows)


def _garbage(report: GarbageReport, _: Shown) -> View:
    lines = [f"  removed  {path}" for path in report.removed] + [f"  kept     {path}" for path in report.kept]
    removed = _count(len(report.removed), "item")
    total = f"{removed} removed, {len(report.kept)} kept, {show_size(report.freed)} freed."
    return Pieces(["\n".join(lines), total]) if lines else "There was no garbage."


def _dump(dump: DomainDump, shown: Shown) -> View:
    pieces: list[View] = [facts(dump.domain), Facts(list(dump.metadata.items()), "Metadata")]
    if dump.facts:
        pieces.append(Facts([(key, str(value)) for key, value in dump.facts.items()], "From the driver"))
    pieces.append(_volume_table(dump.volumes))
    if dump.damaged:
        pieces.append(_problems(dump.damaged, shown))
    if dump.garbage:
        pieces.append("\n".join(["Garbage", *[f"  {path}" for path in dump.garbage]]))
    pieces.append("--json tells all." + (f" More: --start {dump.next}" if dump.next else ""))
    return Pieces(pieces)


def _prepared(prepared: PreparedInfo, shown: Shown) -> View:
    rows: list[tuple[str, Cell | None]] = [
        ("Path", prepared.path),
        ("Format", prepared.format.value),
        ("Encryption", shown.names.encryption(prepared)),
        ("Use", "read-only" if prepared.read_only else "reading and writing"),
        ("Keeper", f"process {prepared.keeper}"),
    ]
    release = f"Give it back with `hsmctl image teardown {shown.name('image')}`."
    return Pieces([Facts(rows), release])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _transfers(page: TransferPage, shown: Shown) -> View:
    brief = ids(item.id for item in page.items)
    names: dict[UUID, str] = {}
    for domain in {item.domain for item in page.items if not item.name}:
        names |= shown.names.image_names(domain)
    rows = []
    for item in page.items:
        size, arrived = show_size(item.size), show_size(item.arrived)
        upload = item.direction is Direction.UPLOAD
        row: list[Cell] = [
            brief[item.id],
            item.direction.value,
            item.name or names.get(item.image) or str(item.image)[:8],
            state(item.state),
            size,
            arrived if upload else "-",
            show_time(item.created),
            item.problem or "-",
        ]
        rows.append(row)
    headings = ["ID", "DIRECTION", "IMAGE", "STATE", "SIZE", "ARRIVED", "CREATED", "PROBLEM"]
    empty = "There are no transfers. `hsmctl image upload` and `hsmctl image download` make some."
    return Table(headings, rows, frozenset({"SIZE", "ARRIVED"}), empty)


LOOKS: dict[type, Callable[[Any, Shown], View]] = {
    ImagePage: _images,
    ImageInfo: _image,
    VolumePage: _volumes,
    DomainPage: _domains,
    TaskPage: _tasks,
    TaskInfo: _task,
    TransferPage: _transfers,
    CheckReport: _check,
    GarbageReport: _garbage,
    DomainDump: _dump,
    PreparedInfo: _prepared,
    EventPage: lambda page, _: "\n".join([*map(event_line, page.items), f"Next: --after {page.next}"]),
}
