"""The network front: terminates the wire, authenticates, long-polls, forwards."""

import os

# Set before gRPC is loaded: its core must not print into the structured log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
