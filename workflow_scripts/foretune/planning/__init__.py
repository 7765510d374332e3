"""Estimates what a study will take, and fetches its data and weights."""
