# SPDX-License-Identifier: Apache-2.0
"""What is wrong is shown where people look."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from hsmctl.names import Names
from hsmctl.output import plain
from hsmctl.shown import Shown
from hsmctl.tables import event_line
from hsmctl.views import view
from libvdsm.api import VERBS, Api
from libvdsm.api.domain import CheckReport, DomainInfo, DomainPage, DomainState, GarbageReport, Problem
from libvdsm.api.event import EventInfo
from libvdsm.api.host import DriverInfo
from libvdsm.api.image import ImagePage
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ErrorInfo,
    ImageId,
    ImageInfo,
    Legality,
    Progress,
    TaskId,
    TaskInfo,
    TaskState,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)
from libvdsm.api.volume import VolumePage
from tests.ctl.test_names import A, B, C, Domains

IMAGE = ImageInfo(
    id=ImageId(A),
    domain=DomainId(C),
    leaf=VolumeId(B),
    capacity=2**30,
    actual_size=0,
    created=0.0,
    is_template=False,
    legality=Legality.LEGAL,
    snapshots=0,
)
VOLUME = VolumeInfo(
    id=VolumeId(B),
    domain=DomainId(C),
    image=ImageId(A),
    format=VolumeFormat.QCOW2,
    allocation=Allocation.SPARSE,
    role=VolumeRole.LEAF,
    legality=Legality.ILLEGAL,
    capacity=2**30,
    actual_size=0,
    length=0,
    created=0.0,
    generation=0,
    sequence=1,
)


def lines(verb: str, result: Any, **given: Any) -> list[str]:
    shown = Shown(VERBS[verb], given, Names(cast("Api", Domains("fast"))))
    return plain(view(result, shown))


def changed(value: Any, **members: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(value, **members)


def test_a_damaged_image_is_told_in_the_list() -> None:
    page = ImagePage(items=[IMAGE, changed(IMAGE, id=ImageId(B), damage="its chain is a circle")])
    table = lines("Image.list", page)
    assert table[0].endswith("  DAMAGE")
    assert table[1].endswith("  -")
    assert table[2].endswith("  its chain is a circle")


def test_a_clone_of_a_template_that_is_not_listed_shows_its_id() -> None:
    page = ImagePage(items=[changed(IMAGE, template=ImageId(B))])
    assert f"clone of {B}" in lines("Image.list", page)[1]


def test_an_illegal_layer_is_told_in_the_chain() -> None:
    told = lines("Image.getInfo", changed(IMAGE, chain=[VOLUME], legality=Legality.ILLEGAL))
    assert told[-1].endswith("  illegal")
    assert "Legality:     illegal" in told


def test_an_illegal_volume_is_told_in_the_list() -> None:
    assert lines("Volume.list", VolumePage(items=[VOLUME]))[1].endswith("  illegal")


def test_an_unreachable_domain_is_told_with_its_problem() -> None:
    domain = DomainInfo(
        id=DomainId(A), type="nfs", state=DomainState.UNAVAILABLE, path="/x", problem="the server does not answer"
    )
    table = lines("Domain.list", DomainPage(items=[domain]))
    assert table[1].split("  ")[-1] == "the server does not answer"
    assert "unavailable" in table[1]


def test_problems_of_a_domain_are_listed_before_the_verdict() -> None:
    problem = Problem(kind="chain", severity="error", message="Parent missing; see Domain.dump.", image=ImageId(A))
    told = lines(
        "Domain.check", CheckReport(domain=DomainId(C), healthy=False, images=1, volumes=2, problems=[problem])
    )
    assert told[1].split() == ["error", "chain", str(A), *["Parent", "missing;", "see", "`hsmctl", "domain", "dump`."]]
    assert told[-1] == "1 problem, some data cannot be used: 1 image and 2 volumes looked at."


def test_garbage_is_listed_with_what_was_kept() -> None:
    report = GarbageReport(domain=DomainId(C), removed=["images/_x"], kept=["images/_y"], freed=2**20)
    assert lines("Domain.collectGarbage", report) == [
        "  removed  images/_x",
        "  kept     images/_y",
        "",
        "1 item removed, 1 kept, 1M freed.",
    ]


def test_a_failed_task_tells_why() -> None:
    task: TaskInfo[Any] = TaskInfo(
        id=TaskId(A),
        verb="Image.clone",
        state=TaskState.FAILED,
        created=0.0,
        progress=Progress(done=2**20, total=2**21, percent=50.0, step="copying"),
        owner="me",
        request="r",
        started=1.0,
        ended=2.5,
        error=ErrorInfo(name="NotTemplate", code=304, message="Use Image.makeTemplate.", data={}),
    )
    told = lines("Task.getInfo", task)
    assert "Progress:  50%, 1M of 2M, copying" in told
    assert "Took:      1.5 s" in told
    assert "Error:     Use `hsmctl image make-template`. (NotTemplate)" in told


def test_an_event_is_one_line_with_all_its_members() -> None:
    event = EventInfo(sequence=7, time=0.0, name="VolumeCreated", data={"image": str(A), "name": "my image"})
    assert event_line(event).endswith(f"  7  VolumeCreated    image={A} name='my image'")


def test_a_result_without_a_look_of_its_own_shows_every_member() -> None:
    driver = DriverInfo(
        type="local", driver_api="1.0", shared=False, block=False, preallocation=True, description="a folder"
    )
    assert lines("Host.ping", driver) == [
        "Type:           local",
        "Driver API:     1.0",
        "Shared:         no",
        "Block:          no",
        "Preallocation:  yes",
        "Description:    a folder",
    ]


def test_a_sentence_names_things_as_the_user_did() -> None:
    shown = Shown(VERBS["Image.delete"], {"image": A}, Names(cast("Api", Domains("fast"))))
    shown.names.known[UUID(str(A))] = "web01"
    assert plain(view(None, shown)) == ["Deleted image web01."]
