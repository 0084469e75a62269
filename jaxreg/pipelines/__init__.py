"""`jaxreg register` as a step of pipelines: a nipype interface and a pydra task."""
