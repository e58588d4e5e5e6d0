"""Invertible models: x = f(z)."""
