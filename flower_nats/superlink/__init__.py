"""The worker. `wiring.py` names its parts: API handlers, the life of runs, accounts, housekeeping."""
