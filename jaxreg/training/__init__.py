"""The two stages, their loop and their checkpoints."""
