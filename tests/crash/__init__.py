# SPDX-License-Identifier: Apache-2.0
"""The crash tests: hsmd and its tools are killed, and the storage fails, at every system call that changes something.

``python -m tests.crash`` runs all, ``test_sample.py`` a sample.  How it works, from the outside in:

``runner``       gives operations to worker processes, and adds up what they report
``trial``        one operation: a recording without accident, then a fresh home for each accident
``operation``    what one is; ``proofs``: what has to be true when it has succeeded
``operations``   the table of operations: what is arranged, what is called, what has to be true afterwards
``points``       which system calls of which thread change state, found in a recording
``accidents``    what happens at a point: the service killed, ENOSPC, EIO
``tools``        what happens to a program at its bulk writes: killed, orphaned, ENOSPC, EIO
``owned``        tasks that a client owns: the client killed, the service, both; ``client`` is that client
``invariants``   what has to be true whatever happened, read from the disk by code that is not the product's
``durability``   what was on stable storage when something was published or told, read from the recording
``tracing``      strace: attaching, injecting, and its output as data
``hsmd``         the service as a process; ``nursery`` gives birth to it quickly
``fixture``      the home that each run begins with, and the ids and data in it

An injection counts the calls of one thread on one path, so it does not depend on what other threads do; each is
checked to have happened where the recording says.
"""
