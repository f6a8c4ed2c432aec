"""The handlers of Control, Fleet and Runtime, and of gateways' questions: one function per call."""
