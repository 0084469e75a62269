"""The networks: Linen modules with a batch axis, no losses, warps or grids inside."""
