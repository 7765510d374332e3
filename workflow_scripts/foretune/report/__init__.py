"""Builds the HTML report, its charts, the figures for papers, and provenance."""
