"""Measuring: protocols, what is compared, and the report."""
