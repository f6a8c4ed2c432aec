"""``python -m benchmarks.leash COMMAND …``: become COMMAND, to be ended when the parent dies.

A harness that is killed must not leave servers behind. This is a program of its own because
running Python between fork and exec is unsafe in a process with gRPC's threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])
