"""Metrics, the λ sweep, statistics and figures."""
