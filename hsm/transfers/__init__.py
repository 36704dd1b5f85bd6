# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads: their states, their record, and the programs that move their data."""
