"""flower-nats: a highly available federation runtime for Flower."""
