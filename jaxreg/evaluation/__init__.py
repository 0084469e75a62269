"""Metrics, the λ sweep and the figures."""
