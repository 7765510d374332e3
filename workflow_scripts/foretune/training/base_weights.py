"""The weights of a base model, to which it returns after each trial or checkpoint."""

from collections.abc import Iterable

from torch import Tensor, nn


class BaseWeights:
    """A model's weights as they are now, to return to after a training changed them.

    Only tensors that are trained are copied, so that LoRA of a large model does not need the memory
    of a second one. The others are the model's own.

    Args:
        model: a plain model, as `load_model` returns it. Its buffers, which training changes
            without a gradient, are copied at once.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.tensors: dict[str, Tensor] = {k: v.detach() for k, v in model.state_dict().items()}
        self.shared = set(self.tensors)
        self.keep(name for name, _ in model.named_buffers())

    def keep(self, names: Iterable[str]) -> None:
        """Copy tensors before they are changed. Names that the model does not have are ignored."""
        for name in self.shared.intersection(names):
            self.tensors[name] = self.tensors[name].clone()
            self.shared.remove(name)

    def restore(self) -> None:
        """Give the model its weights back; it must be plain again."""
        self.model.load_state_dict(self.tensors)
