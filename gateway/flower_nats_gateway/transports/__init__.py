"""The only places that know a wire."""
