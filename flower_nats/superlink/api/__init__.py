"""The handlers of Control, Fleet and Runtime, and of what gateways ask: one function for each call."""
