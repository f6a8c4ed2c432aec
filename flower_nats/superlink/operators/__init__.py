"""What the commands of `flower-nats` ask: status, reports on runs, accounts, limits, keys."""
