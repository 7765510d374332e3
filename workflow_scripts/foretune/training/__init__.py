"""Methods, recipes, trials, checkpoints and the training loop; training on cached embeddings."""
