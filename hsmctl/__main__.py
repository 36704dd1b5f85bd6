# SPDX-License-Identifier: Apache-2.0
"""``python -m hsmctl``."""

from hsmctl.main import main

main()
