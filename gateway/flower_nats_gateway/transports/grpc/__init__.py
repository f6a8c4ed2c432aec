"""Flower's APIs over gRPC: flwr 1.30 to 1.39."""
