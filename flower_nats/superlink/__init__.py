"""The worker. `wiring.py` has its parts: API handlers, the life of runs, accounts, housekeeping."""
