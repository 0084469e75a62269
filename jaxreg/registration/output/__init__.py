"""What a registration writes: its files, its numbers with their verdicts, its provenance."""
