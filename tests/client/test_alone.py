# SPDX-License-Identifier: Apache-2.0
"""The client is installable without the server: it imports nothing of it, whatever it is asked to do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import libvdsm
from tests.client.conftest import Reachable

ROOT = Path(libvdsm.__file__).parents[1]
NEEDED = ("libvdsm.api", "libvdsm.client", "libvdsm.declare", "libvdsm.log", "libvdsm.threads", "libvdsm.wire")

ALONE = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hsm", "hsmctl") or name.startswith("libvdsm.server"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from libvdsm.client import connect
for address in sys.argv[1:]:
    with connect(address) as client:
        client.host.ping()
        domain = client.domain.list().items[0].id
        task = client.domain.check(domain=domain)
        events = client.listen(after=client.event.poll().next - 1)
        assert client.wait(task).healthy
        next(events)
print(json.dumps(sorted(sys.modules)))
"""


def test_a_client_works_where_no_server_is_installed(reachable: Reachable) -> None:
    words = [sys.executable, "-c", ALONE, *reachable.addresses.values()]
    ended = subprocess.run(words, capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr.decode()
    loaded = json.loads(ended.stdout)
    ours = [name for name in loaded if name.split(".")[0] in ("hsm", "hsmctl", "libvdsm")]
    assert [name for name in ours if name != "libvdsm" and not name.startswith(NEEDED)] == []


def imports(module: Path) -> set[str]:
    """The names of the modules that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def file_of(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.exists():
            return file
    return None


def test_nothing_that_it_imports_imports_the_server() -> None:
    waiting = [f"libvdsm.client.{file.stem}" for file in (ROOT / "libvdsm" / "client").glob("[!_]*.py")]
    waiting.append("libvdsm.client")
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        file = file_of(name)
        if name in seen or file is None:
            continue
        seen.add(name)
        waiting += [found for found in imports(file) if found.split(".")[0] in ("hsm", "hsmctl", "libvdsm")]
    assert {name for name in seen if name != "libvdsm" and not name.startswith(NEEDED)} == set()
    assert len(seen) > 15


def test_beyond_the_standard_library_it_needs_one_package() -> None:
    foreign = set()
    for folder in ("api", "client", "wire"):
        for file in (ROOT / "libvdsm" / folder).glob("*.py"):
            foreign |= {name.split(".")[0] for name in imports(file)}
    foreign |= {name.split(".")[0] for file in ("declare.py", "log.py") for name in imports(ROOT / "libvdsm" / file)}
    assert foreign - set(sys.stdlib_module_names) == {"libvdsm", "msgspec"}
