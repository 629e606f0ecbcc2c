"""What a training writes down for those who read it later."""
