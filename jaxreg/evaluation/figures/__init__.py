"""Figures from arrays; matplotlib is used here alone."""
