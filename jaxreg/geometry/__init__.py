"""Grids, fields, transforms and resampling in memory; no files."""
