"""Calls, and the limits on their number."""
