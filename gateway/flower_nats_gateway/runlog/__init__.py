"""The log of a run: storing lines and following them."""
