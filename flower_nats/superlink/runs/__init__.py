"""The life of runs: FABs, federations, ends, and what follows from a change."""
