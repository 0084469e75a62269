"""One pair of images, from files or arrays to a complete result."""
