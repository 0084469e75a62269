"""The HTML report of a registration."""
