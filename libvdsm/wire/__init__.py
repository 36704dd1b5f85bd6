# SPDX-License-Identifier: Apache-2.0
"""Bytes to calls and replies, and back.  Nothing here opens, reads or writes a socket or a file."""
