# SPDX-License-Identifier: Apache-2.0
"""The framed wire by hand, to be told again in any language: a socket, and JSON behind eight bytes of length.

python examples/any_language.py unix:/run/hsm/hsm.sock      (or tcp:127.0.0.1:54331, where strangers may only read)
"""

import json
import socket
import struct
import sys
from typing import Any

kind, _, place = sys.argv[1].partition(":") if len(sys.argv) == 2 else sys.exit(__doc__)
if kind == "unix":
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(place)
else:
    host, _, port = place.rpartition(":")
    sock = socket.create_connection((host, int(port)))
stream = sock.makefile("rwb")


def call(method: str, **params: Any) -> Any:
    """One request, one reply: JSON-RPC 2.0, parameters by name."""
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    stream.write(struct.pack(">Q", len(message)) + message)
    stream.flush()
    reply = json.loads(stream.read(*struct.unpack(">Q", stream.read(8))))
    if "error" in reply:  # its name is stable, its message says what to do
        sys.exit(f"{reply['error']['data']['name']}: {reply['error']['message']}")
    return reply["result"]


domain = call("Domain.list")["items"][0]["id"]
task = call("Image.create", domain=domain, name="by-hand", capacity=2**30)
task = call("Task.wait", task=task["id"], timeout=30)  # state, and then result or error
print(task["state"], task["result"]["id"])
call("Task.wait", task=call("Image.delete", domain=domain, image=task["result"]["id"])["id"], timeout=30)
