"""How to install missing packages."""


def how_to_install(extra: str) -> str:
    """Return the command that installs a group of optional packages of pyproject.toml.

    It names no package of an index, because flower-nats is installed from a checkout.
    """
    return f"`pip install '.[{extra}]'` in a checkout of flower-nats"
