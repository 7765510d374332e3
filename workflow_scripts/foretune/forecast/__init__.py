"""Forecasts outcomes for datasets that were not fine-tuned, from the results of a study."""
