"""Chaos: a random process of the runtime is killed every few seconds while runs are under way."""
