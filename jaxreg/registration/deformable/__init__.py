"""The deformable part: the network grid, the method, its velocities, and the choice of λ."""
