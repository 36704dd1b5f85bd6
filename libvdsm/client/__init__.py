# SPDX-License-Identifier: Apache-2.0
"""The typed client: ``connect(address)`` gives an object with the API's classes as attributes.

>>> client = connect("unix:/run/hsm/hsm.sock")
>>> task = client.image.create(domain=domain, name="web01", capacity=64 * 2**30)
>>> image = client.wait(task)

What goes wrong is raised as an ``ApiError``: one of the classes in ``libvdsm.api.errors``, or ``RemoteError``.
"""

from libvdsm.client.client import Client, RemoteError
from libvdsm.client.connect import connect
from libvdsm.client.listening import Events
from libvdsm.client.owner import OwnedTask, TaskOwner
from libvdsm.declare import ApiError

__all__ = ["ApiError", "Client", "Events", "OwnedTask", "RemoteError", "TaskOwner", "connect"]
