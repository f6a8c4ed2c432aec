"""A call in hand, and how many of them there may be."""
