"""The linear part: rigid and affine alignment, and the starts that a registration tries."""
