# SPDX-License-Identifier: Apache-2.0
"""What clients see.  This is the only place to edit when the API changes.

``Api`` is the one list of classes; ``VERBS``, ``ERRORS`` and ``EVENTS`` are the records that everything else is made
from.
"""

from __future__ import annotations

from libvdsm.api import errors as _errors
from libvdsm.api.audit import Audit
from libvdsm.api.bitmap import Bitmap
from libvdsm.api.config import Config
from libvdsm.api.domain import Domain
from libvdsm.api.event import Event, EventData
from libvdsm.api.host import Host
from libvdsm.api.image import Image
from libvdsm.api.secret import Secret
from libvdsm.api.session import Session
from libvdsm.api.task import Task
from libvdsm.api.transfer import Transfer
from libvdsm.api.types import TaskInfo
from libvdsm.api.volume import Volume
from libvdsm.declare import ApiError, read_api

VERSION = "1.1"
"""Of the API: major.minor.  A new verb, parameter, field, value or error raises the minor number."""


class Api:
    """The one list of API classes; a client has these attributes."""

    host: Host
    config: Config
    session: Session
    domain: Domain
    image: Image
    volume: Volume
    task: Task
    event: Event
    audit: Audit
    transfer: Transfer
    bitmap: Bitmap
    secret: Secret


CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (Host, Config, Session, Domain, Image, Volume, Task, Event, Audit, Transfer, Bitmap, Secret)
}
VERBS = read_api(Api, TaskInfo)
ERRORS: dict[str, type[ApiError]] = {
    name: cls
    for name, cls in vars(_errors).items()
    if isinstance(cls, type) and issubclass(cls, ApiError) and cls is not ApiError
}
EVENTS: dict[str, type[EventData]] = {cls.__name__: cls for cls in EventData.__subclasses__()}

__all__ = ["CLASSES", "ERRORS", "EVENTS", "VERBS", "VERSION", "Api"]
