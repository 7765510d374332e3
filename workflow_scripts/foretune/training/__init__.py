"""Trains models by each method, trial by trial, on images or on cached embeddings."""
