"""torchattacks, in an environment of its own."""
