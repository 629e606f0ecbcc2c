"""Times, side by side in one run, as ratios; nothing here is asserted."""
