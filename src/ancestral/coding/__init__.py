"""Lossless codecs on top of a likelihood."""
