"""The network front: terminates the wire, authenticates, long-polls, forwards."""
