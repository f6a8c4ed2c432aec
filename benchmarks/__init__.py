"""The benchmark: stock ``flower-superlink`` and flower-nats, in turn, under the same load."""
