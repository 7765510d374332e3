"""Readers of image sources, by kind of source, and facts about public datasets."""
