"""A pair of images: direct optimisation of a velocity field."""
