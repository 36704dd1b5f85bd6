# SPDX-License-Identifier: Apache-2.0
"""Print what happens on a host's storage, as it happens; end with ^C.

python examples/events.py unix:/run/hsm/hsm.sock
"""

import sys
import time

from libvdsm.client import connect

if len(sys.argv) != 2:
    sys.exit(__doc__)
with connect(sys.argv[1]) as client:
    # Listening uses a connection of its own: this client could make calls meanwhile.
    events = client.listen()
    print("listening", flush=True)
    try:
        for event in events:
            clock = time.strftime("%H:%M:%S", time.localtime(event.time))
            if event.name == "TaskChanged":
                what = f"{event.data['verb']}: {event.data['state']}, {event.data['progress']['percent']:.0f}%"
            else:
                # Newer services have more events: print what there is, and never fail over a name.
                what = ", ".join(f"{key} {value}" for key, value in event.data.items())
            print(f"{clock} {event.sequence} {event.name}: {what}", flush=True)
    except KeyboardInterrupt:
        pass
