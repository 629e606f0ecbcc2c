"""Attacks within an ε-ball, for training and for evaluation."""
