"""Other registration tools on the same pair."""
