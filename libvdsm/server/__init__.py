# SPDX-License-Identifier: Apache-2.0
"""Serving the API: from bytes on a transport to a method of a service, and back."""
