"""Cohorts on disk and in memory, and the batches made of them."""
