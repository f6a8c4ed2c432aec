"""nats-server and PostgreSQL as child processes of one machine."""
