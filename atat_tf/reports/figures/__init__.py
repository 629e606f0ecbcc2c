"""Figures of attention, of losses, and of accuracy, as the paper has them."""
