"""Joins measures with outcomes: correlations, regressions, findings, the papers' tables."""
