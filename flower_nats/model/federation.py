"""The one federation of a runtime without federation management.

Its name is what stock clients expect of such a SuperLink (flwr 1.33 to 1.42 `supercore/constant.py`,
NOOP_FEDERATION_ID): every account and every node is in it.
"""

from flower_nats.model.caller import NO_ACCOUNT_NAME

DEFAULT_FEDERATION = f"@{NO_ACCOUNT_NAME}/default"
DEFAULT_FEDERATION_DESCRIPTION = "The federation of everything that connects to this SuperLink."
