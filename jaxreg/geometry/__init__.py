"""Grids, fields, transforms and resampling in memory, by NumPy, SciPy and SimpleITK; no files.

Nothing here imports JAX.
"""
