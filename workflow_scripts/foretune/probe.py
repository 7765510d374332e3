"""Linear probes on cached embeddings: all trials at once, in one batched matrix product.

A probe never sees a pixel. It reads the raw embeddings (not of unit length), as a linear
layer on the encoder would, and starts from zero.
"""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.datasets import read_manifest
from foretune.embeddings import read_pair
from foretune.recipe import learning_rate_at, make_optimizer
from foretune.trials import has_diverged, is_better, write_results


def fit_probe(
    run, dataset: Path, embeddings: Path, recipe, trials, seed, output, log=print
) -> None:
    """Train one probe a trial, side by side, and write `output`'s three files.

    With G trials the weights are (G, d, C) and the biases (G, C). The trials share every
    batch and no parameter, and gradients of a sum of losses are each loss's own, so the
    result is that of G separate trainings.
    """
    digest = read_manifest(dataset)["digest"]
    data = {}
    for split in ("train", "val"):
        images, texts = read_pair(embeddings, split, digest)
        vectors = torch.from_numpy(images.vectors.copy())
        data[split] = vectors, torch.from_numpy(images.columns["label"].copy()).long()
    vectors, labels = data["train"]
    width, classes = vectors.shape[1], len(texts.vectors)
    layers = [
        (torch.zeros(width, classes, requires_grad=True), torch.zeros(classes, requires_grad=True))
        for _ in trials
    ]
    optimizers = [
        make_optimizer(recipe, trial, list(layer))
        for trial, layer in zip(trials, layers, strict=True)
    ]
    epochs, best, delta = [], None, {}
    for epoch in range(recipe["epochs"]):
        started = time.monotonic()
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        batches = torch.from_numpy(order).split(recipe["batch_size"])
        total = torch.zeros(len(trials))
        for number, batch in enumerate(batches):
            losses = probe_losses(layers, vectors[batch], labels[batch])
            losses.sum().backward()
            for trial, optimizer in zip(trials, optimizers, strict=True):
                rate = learning_rate_at(
                    recipe, trial["learning_rate"], epoch * len(batches) + number, len(batches)
                )
                optimizer.param_groups[0]["lr"] = rate
                optimizer.step()
                optimizer.zero_grad()
            total += losses.detach() * len(batch)
        speed = len(labels) / (time.monotonic() - started)
        with torch.no_grad():
            predicted = probe_logits(layers, data["val"][0]).argmax(dim=2)
            accuracy = (predicted == data["val"][1]).double().mean(dim=1)
        for i, trial in enumerate(trials):
            row = {
                "trial": trial["trial"],
                "learning_rate_peak": trial["learning_rate"],
                "weight_decay": trial["weight_decay"],
                "epoch": epoch + 1,
                "loss": total[i].item() / len(labels),
                "val_accuracy": accuracy[i].item(),
                "learning_rate": optimizers[i].param_groups[0]["lr"],
                "images_per_second": speed,
            }
            epochs.append(row)
            if not has_diverged(row, layers[i]) and is_better(row, best):
                weight, bias = layers[i]
                best, delta = (
                    row,
                    {"weight": weight.detach().clone(), "bias": bias.detach().clone()},
                )
    epochs.sort(key=lambda row: (row["trial"], row["epoch"]))
    write_results(output, run, epochs, best, delta)
    log(f"{run['dataset']} probe: {len(trials)} trials, best validation {best['val_accuracy']:.3f}")


def probe_logits(layers: list[tuple[Tensor, Tensor]], vectors: Tensor) -> Tensor:
    """Logits (G, B, C) of G probes."""
    weight = torch.stack([layer[0] for layer in layers])
    bias = torch.stack([layer[1] for layer in layers])
    return torch.einsum("bd,gdc->gbc", vectors, weight) + bias[:, None]


def probe_losses(layers, vectors: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (G,) of each probe."""
    logits = probe_logits(layers, vectors)
    flat = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
    return flat.view(len(logits), -1).mean(dim=1)
