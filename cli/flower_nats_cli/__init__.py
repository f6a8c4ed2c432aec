"""The `flower-nats` command, one module per command."""
