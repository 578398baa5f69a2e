"""What turns a model and local data into a better model."""
