"""Several runs on one cohort, side by side."""
