"""Cohorts made by formulas or from a template: phantoms and simulated subjects."""
