"""The network front: terminates the wire, authenticates, long-polls, forwards."""

import os

# Before gRPC is loaded: what its core prints is not for the log, whose lines are structured.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
