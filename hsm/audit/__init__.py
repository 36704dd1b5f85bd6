# SPDX-License-Identifier: Apache-2.0
"""The audit log: who changed what, from where, and how it ended."""
