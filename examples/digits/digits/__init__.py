"""Handwritten digits, learnt by a federation: see README.md."""
