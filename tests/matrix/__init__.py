"""The version matrix: whole runs with the unmodified clients of each flwr, against one runtime.

`python -m tests.matrix --help` says how to run it; docs/compatibility.md has the results.
"""
