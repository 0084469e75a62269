"""Volumes, cohorts, pairs and phantoms."""
