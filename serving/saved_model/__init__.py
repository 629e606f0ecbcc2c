"""What is served: signatures, and a version of a SavedModel."""
