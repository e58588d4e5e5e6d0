"""The models, one folder a family."""
