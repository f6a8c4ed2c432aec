"""Code for the environment of the measured flwr, which has flwr and the standard library only."""
