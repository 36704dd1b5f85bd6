# SPDX-License-Identifier: Apache-2.0
"""A failure in the machine shows the values that it compared, as one in a test does."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"tests.property.{name}" for name in ("judge", "machine", "making", "layers", "copies", "bitmaps", "transfers"))
)
