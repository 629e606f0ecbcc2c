"""What a training step minimises: Eq. 7, and the methods beside it."""
