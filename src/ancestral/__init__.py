"""Deep generative models of the classical taxonomy, on your own data, under one honest yardstick."""
