"""Flower's APIs over HTTP/1.1: flwr 1.35 and newer."""
