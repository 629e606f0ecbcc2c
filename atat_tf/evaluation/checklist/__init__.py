"""The checklist: evidence that a measured robustness is not false."""
