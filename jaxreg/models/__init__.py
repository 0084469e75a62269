"""Trained networks: rebuilt from a run, stored as checkpoints, released as small files."""
