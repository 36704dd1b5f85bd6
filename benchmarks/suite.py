# SPDX-License-Identifier: Apache-2.0
"""The one table of benchmarks, and the goals that the project has set itself."""

from __future__ import annotations

from benchmarks import calls, copying, creation, listing, memory, merging, starting, transfers
from benchmarks.rounds import Benchmark, Goal
from libvdsm.api.types import VolumeFormat

_RAW, _QCOW2 = VolumeFormat.RAW, VolumeFormat.QCOW2
_COPIED = Goal("ratio <= 1.05", ratio_at_most=1.05)
_PINGS = Goal(">= 8000/s, or ratio >= 0.5", ours_at_least=8000, ratio_at_least=0.5)

BENCHMARKS = (
    Benchmark("create", "a 64 GiB qcow2 volume", "ms", Goal("ratio <= 1.0", ratio_at_most=1.0), creation.create, 3),
    Benchmark("overlay", "a snapshot of it", "ms", Goal("ratio <= 1.0", ratio_at_most=1.0), creation.overlay, 3),
    Benchmark(
        "list", "2,000 volumes in one call", "ms", Goal("ratio <= 1/200", ratio_at_most=1 / 200), listing.volume_list
    ),
    Benchmark("list-again", "the same, unchanged since", "ms", Goal("reported"), listing.unchanged_list),
    Benchmark("ping", "framed JSON-RPC, shipped client", "calls/s", _PINGS, calls.ping, 3),
    Benchmark("ping-minimal", "framed JSON-RPC, minimal client", "calls/s", _PINGS, calls.ping_minimal, 3),
    Benchmark(
        "xmlrpc", "XML-RPC, standard client", "calls/s", Goal("ratio >= 0.9", ratio_at_least=0.9), calls.xml_rpc, 3
    ),
    Benchmark("start", "with 5,000 volumes", "s", Goal("< 1 s", ours_at_most=1.0), starting.start),
    Benchmark("memory", "hsmd after a mixed load", "MB", Goal("< 60 MB", ours_at_most=60.0), memory.resident),
    Benchmark("merge", "1 GiB of a top layer, down", "s", Goal("ratio <= 1.1", ratio_at_most=1.1), merging.down),
    Benchmark("children", "processes beside it, importing", "MB", Goal("reported"), memory.children),
    Benchmark(
        "upload", "1 GiB, half holes, into qcow2", "s", Goal("ratio <= 1.1", ratio_at_most=1.1), transfers.upload
    ),
    Benchmark("download", "the same, out of qcow2", "s", Goal("ratio <= 1.1", ratio_at_most=1.1), transfers.download),
    Benchmark("memory-transfers", "hsmd during 8 uploads", "MB", Goal("< 80 MB", ours_at_most=80.0), transfers.memory),
    Benchmark("children-transfers", "processes beside it", "MB", Goal("reported"), transfers.children),
    *(
        Benchmark(
            f"copy-{source.value}-{target.value}", "4 GiB, half holes", "s", _COPIED, copying.between(source, target)
        )
        for source in (_RAW, _QCOW2)
        for target in (_RAW, _QCOW2)
    ),
    Benchmark("copy-shared", "2 GiB of data on XFS", "ms", Goal("< 50 ms", ours_at_most=50.0), copying.shared, 3),
)
