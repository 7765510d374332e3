"""Reads images from sources, and prepares and reads datasets; free of torch."""
