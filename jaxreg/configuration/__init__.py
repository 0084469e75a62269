"""What a run is: settings of training, of the objective and of a registration. No JAX here."""
