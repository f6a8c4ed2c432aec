"""The life of a gateway: how it is wired, serves and leaves."""
