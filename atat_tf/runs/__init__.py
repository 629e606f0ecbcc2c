"""From a recipe to a run folder: configs, flags, files, and the terminal."""
