"""Readers of image sources, one module per kind of source."""
