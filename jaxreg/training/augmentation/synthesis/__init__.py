"""Training images of any contrast, made from label maps on the device, and their labels."""
