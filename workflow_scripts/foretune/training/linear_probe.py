"""Linear probes: a linear layer on the raw image embeddings, trained from zero.

Embeddings are not scaled to unit length: a layer on top of the encoder would not do so either.
"""

from foretune.training.stacked_trials import StackedLayers


class StackedProbes(StackedLayers):
    """The linear layers of G trials on raw image embeddings, trained together."""
