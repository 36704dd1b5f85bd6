# SPDX-License-Identifier: Apache-2.0
"""The API's classes, implemented: thin, one module each.  A service is made for each call, and knows its caller."""
