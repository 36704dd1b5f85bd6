# SPDX-License-Identifier: Apache-2.0
"""Tests of the tests: a verb that does nothing has to be noticed."""
