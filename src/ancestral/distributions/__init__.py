"""Distributions over integers that torch.distributions lacks."""
