"""Work without a caller: liveness, leases, clearing up, watching disks and streams."""
