"""The linear start of a registration."""
