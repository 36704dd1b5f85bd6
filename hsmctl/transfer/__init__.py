# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads of local files, which go on where they were when anything breaks."""
