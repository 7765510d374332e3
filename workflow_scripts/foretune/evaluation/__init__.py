"""Predicts and scores every test by zero-shot, cached and fine-tuned models."""
