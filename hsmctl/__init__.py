# SPDX-License-Identifier: Apache-2.0
"""The command line of the storage service, made from the declarations of the API.

Commands, options, help and values follow from ``libvdsm.api.VERBS``; only examples and the looks of results
are written by hand.
"""
