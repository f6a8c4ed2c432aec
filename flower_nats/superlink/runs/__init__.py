"""The life of runs: FABs, federations, ends, and the effects of a change."""
