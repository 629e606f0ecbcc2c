"""What counts of images are worth, and which may be compared."""
