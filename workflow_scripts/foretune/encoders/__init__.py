"""Loads models, prepares and encodes images, and keeps and streams embedding caches."""
