"""What runs in the environment of the flwr that is measured: flwr and the standard library, no more."""
