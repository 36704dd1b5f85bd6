# SPDX-License-Identifier: Apache-2.0
"""Changes that take time: their states, who works on them, and their record."""
