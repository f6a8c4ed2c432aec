"""The transports. No other module knows a wire."""
