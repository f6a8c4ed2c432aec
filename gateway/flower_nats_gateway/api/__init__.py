"""One function per RPC; none of them knows a wire."""
