# SPDX-License-Identifier: Apache-2.0
"""Goes on ``PYTHONPATH``, so that programs which tests start are mutated as the tests' own process is."""
