"""Code that tests and benchmarks share: the runtime as processes, and clients that call like stock.

It imports flwr to make and read messages as flwr does. It imports no test and no benchmark.
"""
