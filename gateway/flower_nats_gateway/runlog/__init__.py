"""The log of a run: lines come in, and are followed."""
