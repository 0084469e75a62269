"""The deformable part: the network grid, the method and its answer."""
