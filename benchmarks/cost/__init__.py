"""What a training step costs, and how that grows."""
