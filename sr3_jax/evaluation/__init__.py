"""Measures methods on image sets: protocols, what is compared, how, and the report."""
