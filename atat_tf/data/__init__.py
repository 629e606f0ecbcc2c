"""Data sets, folders of images, image files, and training batches."""
