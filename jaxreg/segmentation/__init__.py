"""A brain found and segmented in an image of any contrast."""
