"""Write accounts.conf beside this script: the users and their permissions.

Run by hand, `python compose/nats/generate.py`, after a change to flower_nats.broker.permissions; the
result is committed, so that a stack needs no Python on its host. A test checks it.
"""

import json
import re
from pathlib import Path

from flower_nats.broker.permissions import User, accounts

_HEAD = """\
# Accounts, users and permissions, written by generate.py; for NATS servers of your own, too.
# Passwords come from the environment of nats-server: NATS_GATEWAY_PASSWORD and so on.

"""


def main() -> None:
    """Write the file."""
    variables = {user: f"$NATS_{user.name}_PASSWORD" for user in User if user is not User.OWNER}
    # JSON is a subset of the server's language, but variables have no quotation marks.
    text = json.dumps(accounts(variables), indent=2)
    text = re.sub(r'"(\$NATS_\w+)"', r"\1", text)
    Path(__file__).with_name("accounts.conf").write_text(f"{_HEAD}accounts: {text}\n")


if __name__ == "__main__":
    main()
