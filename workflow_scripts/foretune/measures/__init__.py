"""Computes every measure and its uncertainty from class statistics, and embedding drift."""
