# SPDX-License-Identifier: Apache-2.0
"""Programs to read and to run: short ones for users of the API, and the demonstration behind ``make demo``."""
