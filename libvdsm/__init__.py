# SPDX-License-Identifier: Apache-2.0
"""What all processes share: the API, and how it travels.  Imports nothing else of this project."""
