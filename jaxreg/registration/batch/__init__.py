"""Many pairs: the table, the results, what is done already, a cluster."""
