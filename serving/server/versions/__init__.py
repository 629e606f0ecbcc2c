"""Which versions of a model are served, loaded, and dropped."""
