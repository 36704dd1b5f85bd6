# SPDX-License-Identifier: Apache-2.0
"""XML-RPC over HTTP with nothing but Python's standard library.

python examples/xmlrpc_stdlib.py http://127.0.0.1:54330
"""

import json
import sys
import xmlrpc.client
from typing import Any

if len(sys.argv) != 2:
    sys.exit(__doc__)
service: Any = xmlrpc.client.ServerProxy(f"{sys.argv[1]}/RPC2")

# The one parameter is a structure of named members; the result is one too.
print("hsmd", service.Host.getCapabilities()["version"])
for domain in service.Domain.list({"limit": 10})["items"]:
    print("domain", domain["name"], domain["path"])
    for image in service.Image.list({"domain": domain["id"]})["items"]:
        print("  image", image.get("name", "-"), image["capacity"])  # 64 bits, as <i8>: Python reads that by itself

# An error is a fault: its number, and as text the message, then on a line of its own the name and attributes as JSON.
try:
    service.Domain.getInfo({"domain": "00000000-0000-4000-8000-000000000000"})
except xmlrpc.client.Fault as fault:
    message, _, details = fault.faultString.rpartition("\n")
    print(json.loads(details)["name"], message)
