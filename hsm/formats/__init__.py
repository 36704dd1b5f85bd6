# SPDX-License-Identifier: Apache-2.0
"""What is on disk: bytes to structures and back.  Nothing here opens a file."""
