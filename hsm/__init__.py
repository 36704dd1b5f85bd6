# SPDX-License-Identifier: Apache-2.0
"""The storage service: images and volumes on storage domains, kept safe by leases."""
