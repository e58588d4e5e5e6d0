"""Autoregressive models: p(x) = prod p(x_i | x_<i)."""
