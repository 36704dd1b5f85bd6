# SPDX-License-Identifier: Apache-2.0
"""A first disk, from creation to deletion, with the Python client.

python examples/first_image.py unix:/run/hsm/hsm.sock
"""

import sys

from libvdsm.client import connect

if len(sys.argv) != 2:
    sys.exit(__doc__)
GIB = 2**30

with connect(sys.argv[1]) as client:
    domain = client.domain.list().items[0].id

    # What changes storage is a task: the call answers at once, and `wait` gives the result or raises the error.
    image = client.wait(client.image.create(domain=domain, name="first", capacity=64 * GIB))
    print(f"created {image.name}: a guest sees {image.capacity // GIB} GiB, the disk takes {image.actual_size} bytes")

    # Prepared, it is leased to this host.  Path and format are what QEMU needs to know.
    prepared = client.image.prepare(domain=domain, image=image.id)
    print(f"-drive file={prepared.path},format={prepared.format.value}")
    client.image.teardown(domain=domain, image=image.id)

    client.wait(client.image.snapshot(domain=domain, image=image.id, name="before-upgrade"))
    for volume in client.image.get_info(domain=domain, image=image.id).chain or []:
        print(f"{volume.role.value}: {volume.name}, id {volume.id}")

    client.wait(client.image.delete(domain=domain, image=image.id))
    print("deleted")
