"""One training on many machines."""
