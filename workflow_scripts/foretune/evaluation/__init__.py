"""Predictions and scores of zero-shot, cached and fine-tuned models on every test."""
