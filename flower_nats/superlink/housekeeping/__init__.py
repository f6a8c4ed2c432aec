"""What is done without anybody asking: liveness, leases, clearing up, watch on disks and streams."""
