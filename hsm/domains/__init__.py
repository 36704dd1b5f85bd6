# SPDX-License-Identifier: Apache-2.0
"""Storage domains: the driver protocol, and the drivers.

A driver is a class derived from ``hsm.domains.base.Domain``, found by the entry point group ``hsm.domains``.
"""
