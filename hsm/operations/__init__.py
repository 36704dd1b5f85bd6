# SPDX-License-Identifier: Apache-2.0
"""What changes storage: each operation's steps, its commit point, and how it goes on after a crash."""
