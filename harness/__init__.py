"""Shared by tests and benchmarks: the runtime as real processes, and clients that call as stock does.

It imports flwr, to make and read messages as flwr does, and nothing of tests or benchmarks.
"""
