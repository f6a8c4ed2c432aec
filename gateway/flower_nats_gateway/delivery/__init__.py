"""Push sessions, their objects, and acknowledgements."""
