# SPDX-License-Identifier: Apache-2.0
"""Exit statuses; scripts depend on them."""

OK = 0
FAILED = 1
"""The service answered with an error, or hsmctl refused."""
USAGE = 2
"""The command line is wrong."""
UNREACHABLE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a program that SIGPIPE ends has for a status: whoever reads from us has seen enough."""

EXPLAINED = """exit codes:
  0    done
  1    the service answered with an error, or hsmctl refused: the message says what to do
  2    the command line is wrong
  3    the service cannot be reached
  130  interrupted with ^C"""
