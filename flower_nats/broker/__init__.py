"""NATS: connection, subjects, streams, mailbox, objects, logs, wake-ups."""
