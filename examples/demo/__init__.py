# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the main job on a real image, told so that a reader learns the tool.

``__main__`` is the table of contents, ``chapters`` tell and prove, ``stage`` is what they act on.
"""
