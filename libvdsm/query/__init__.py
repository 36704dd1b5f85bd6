# SPDX-License-Identifier: Apache-2.0
"""Which items of a list, and in which order: the expressions that list verbs take as ``filter`` and ``sort``.

Both are read against the structure that a verb lists, so that a wrong field, operator or value is refused before
anything is looked at.  The language is told in ``docs/guide/queries.md``.
"""
