"""Many pairs from a table: what is done already, the results, and a Dask cluster."""
