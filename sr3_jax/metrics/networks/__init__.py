"""The networks behind some metrics."""
