# SPDX-License-Identifier: Apache-2.0
"""How fast the service is, measured against the bare tool beside it: ``python -m benchmarks``.

What each benchmark measures, and the figures seen, are in ``docs/benchmarks.md``.
"""
