"""The networks that some metrics need; the user supplies their weights."""
