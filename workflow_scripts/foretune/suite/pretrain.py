"""Pretrain a mini dual encoder on the captioned corpus.

The models and losses are open_clip's: CLIP's and EVA-02's softmax, SigLIP's sigmoid, CoCa's softmax
and captions. The sampler and the augmentation are ours (`corpus_batches`). The recipe of a model is
`foretune.pretraining` in its `open_clip_config.json`; `warmup` counts steps there.
"""

import gzip
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.core.code_digest import code_digest
from foretune.core.files import atomic_write, digest_file, write_json
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import CONFIG_NAME, encode_text, load_model, save_weights
from foretune.suite.corpus import CORPUS_COLOURS, DIGIT_NAMES
from foretune.suite.corpus_batches import CAPTION_TEMPLATES, Corpus, draw_batch
from foretune.training.checkpoint import load_checkpoint, save_checkpoint

SAVE_EVERY = 100  # steps


class PretrainingRecipe(TypedDict):
    """The section `foretune.pretraining` of a model's config."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int  # steps
    weight_decay: float


class PretrainingRow(TypedDict):
    """The mean loss and the speed of the last SAVE_EVERY steps before `step`."""

    step: int
    loss: float
    images_per_second: float


def build_vocabulary(corpus_path: Path, architecture: Path, model_dir: Path) -> None:
    """Cut CLIP's byte-pair merges to those that the corpus's captions use.

    Writes to `model_dir` the merges and a copy of the config file `architecture` with the size of
    the new vocabulary.
    """
    used: set[tuple[str, str]] = set()

    class RecordingDict(dict):
        def __contains__(self, pair):  # SimpleTokenizer.bpe asks this of each merge it applies
            known = super().__contains__(pair)
            if known:
                used.add(pair)
            return known

    tokenizer = open_clip.SimpleTokenizer()
    tokenizer.bpe_ranks = RecordingDict(tokenizer.bpe_ranks)
    nouns = pq.read_table(corpus_path, columns=["noun"])["noun"].to_pylist()
    templates = [template for group in CAPTION_TEMPLATES.values() for template in group]
    tokenizer([*set(nouns), *CORPUS_COLOURS, *DIGIT_NAMES, *templates])
    config = json.loads(architecture.read_text())
    merges = sorted(used, key=dict(tokenizer.bpe_ranks).__getitem__)
    # CoCa predicts every token of a caption, so a smaller vocabulary makes it faster.
    merges = merges[: config["foretune"].get("merges_kept")]
    for part in ("text_cfg", "multimodal_cfg"):
        if part in config["model_cfg"]:
            config["model_cfg"][part]["vocab_size"] = 2 * 256 + len(merges) + 2
    with atomic_write(model_dir / config["foretune"]["merges"]) as partial:
        text = "\n".join(["#version: cut to foretune's corpus", *map(" ".join, merges)])
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    write_json(config, model_dir / CONFIG_NAME)


def contrastive_loss(model: Any, images: Tensor, tokens: Tensor) -> Tensor:
    """Return the loss with which the model's family is trained.

    model: one of open_clip's; images: (B, 3, H, W), normalized; tokens: (B, context), the captions
    of the images.
    """
    if isinstance(model, open_clip.CoCa):
        features = model(images, tokens)
        # The loss of the tokens that are not padding: the same loss, but without the softmax over
        # the padding.
        is_token = features["labels"] != model.pad_id
        features |= {key: features[key][is_token][:, None] for key in ("logits", "labels")}
        weights = {"caption_loss_weight": 2.0, "clip_loss_weight": 1.0}  # as in CoCa's paper
        return sum(open_clip.CoCaLoss(**weights)(**features, output_dict=True).values())
    image_vectors = model.encode_image(images, normalize=True)
    text_vectors = F.normalize(encode_text(model, tokens), dim=-1)
    scale = model.logit_scale.exp()
    if model.logit_bias is not None:
        return open_clip.loss.SigLipLoss()(image_vectors, text_vectors, scale, model.logit_bias)
    return open_clip.ClipLoss()(image_vectors, text_vectors, scale)


def make_pretraining_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW; weight decay applies to matrices only, not to biases and other vectors."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def pretraining_rate(recipe: PretrainingRecipe, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to zero."""
    warm = (step + 1) / max(1, recipe["warmup"])
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / recipe["steps"])
    return recipe["learning_rate"] * min(warm, cosine)


def pretrain(
    model_dir: Path,
    corpus_path: Path,
    state_path: Path,
    seed: int,
    log: Callable[[str], object] = print,
) -> list[PretrainingRow]:
    """Train the model of `model_dir` from scratch and write its weights there.

    Resumes from `state_path` if an earlier call was killed. Returns a row for every SAVE_EVERY
    steps.
    """
    torch.manual_seed(seed)
    recipe: PretrainingRecipe = json.loads((model_dir / CONFIG_NAME).read_text())["foretune"][
        "pretraining"
    ]
    steps, batch_size = recipe["steps"], recipe["batch_size"]
    model, preprocess, tokenizer = load_model({"folder": str(model_dir)}, weights=False)
    if isinstance(model, open_clip.CoCa):
        # open_clip leaves the values of this layer undefined (torch.empty).
        head = model.text_decoder.text_projection
        torch.nn.init.normal_(head, std=len(head) ** -0.5)
    model.train()
    optimizer = make_pretraining_optimizer(model, recipe["weight_decay"])
    corpus, side = Corpus(corpus_path), model.visual.image_size[0]
    history: list[PretrainingRow] = []
    first_step = 0
    made_from = {
        "corpus": digest_file(corpus_path), "config": (model_dir / CONFIG_NAME).read_text(),
        "seed": seed, "code": code_digest("suite.pretrain"),
    }  # fmt: skip
    if state := load_checkpoint(state_path, made_from, log):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, history = state["done"], state["history"]
    losses, started = [], time.monotonic()
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = pretraining_rate(recipe, step)
        images, captions = draw_batch(corpus, batch_size, side, np.random.default_rng([seed, step]))
        loss = contrastive_loss(model, preprocess.normalize(images * 255), tokenizer(captions))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        losses.append(loss.item())
        if len(losses) == SAVE_EVERY or step + 1 == steps:
            speed = len(losses) * batch_size / (time.monotonic() - started)
            mean_loss = float(np.mean(losses))
            history.append({"step": step + 1, "loss": mean_loss, "images_per_second": speed})
            minutes_left = (steps - step - 1) * batch_size / speed / 60
            log(f"step {step + 1}/{steps}  loss {mean_loss:.3f}  {speed:.0f} images/s  "
                f"{minutes_left:.0f} min left")  # fmt: skip
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"done": step + 1, "history": history}
            save_checkpoint(state, state_path, made_from)
            losses, started = [], time.monotonic()
    save_weights(model, model_dir)
    return history
