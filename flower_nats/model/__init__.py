"""Nouns of the domain: states and their transitions, errors."""
