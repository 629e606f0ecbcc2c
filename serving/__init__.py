"""Serving of trained classifiers: export, embedded server, client."""
