"""A gateway's knowledge of nodes, tasks, runs and other gateways."""
