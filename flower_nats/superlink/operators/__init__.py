"""The answers for `flower-nats` commands: status, reports on runs, accounts, limits, keys."""
