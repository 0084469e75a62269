"""Other registration tools on the same pair, and their scores beside those of jaxreg."""
