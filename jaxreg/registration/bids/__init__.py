"""A BIDS data set in, BIDS derivatives out: which pairs, and the names of the results."""
