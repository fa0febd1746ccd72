"""What a running system shows of itself: logs, metrics and the trace of a request."""
