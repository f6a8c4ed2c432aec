"""The worker: API handlers, run life cycle, liveness, expiry, collection."""
