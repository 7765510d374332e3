"""Class statistics in one pass, every measure, its uncertainty, and the drift of embeddings."""
