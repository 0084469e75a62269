"""What a registration writes, and the numbers that it reports."""
