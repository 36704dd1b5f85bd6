# SPDX-License-Identifier: Apache-2.0
"""One thin module for each program that the service starts."""
