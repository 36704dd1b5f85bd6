# SPDX-License-Identifier: Apache-2.0
"""The chapters of the demonstration, each a function of the stage that tells, does, and proves one thing."""
