"""Grids, fields, transforms and resampling in memory, by NumPy alone; no files, no JAX."""
