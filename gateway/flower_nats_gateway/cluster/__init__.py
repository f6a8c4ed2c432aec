"""What a gateway knows of nodes, tasks, runs and other gateways."""
