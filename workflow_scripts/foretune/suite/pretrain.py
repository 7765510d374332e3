"""Pretraining of a mini dual encoder on the captioned corpus.

open_clip's models and losses (CLIP's and EVA-02's softmax, SigLIP's sigmoid, CoCa's softmax and
captions); ours are the sampler (no concept twice in a batch, so that no caption is a negative of
its own picture) and the augmentation, which runs on whole batches. A model's recipe stands in
its `open_clip_config.json`: foretune.pretraining, with the warm-up in steps.
"""

import gzip
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foretune.core.code_digest import code_digest
from foretune.core.files import atomic_write, digest_file, write_json
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import CONFIG_NAME, encode_text, load_model, save_weights
from foretune.suite.corpus import CORPUS_COLOURS, DIGIT_NAMES
from foretune.training.checkpoint import load_checkpoint, save_checkpoint

# What a caption may say of a picture; {0} is its noun, {1} the digit's name or the letter's case.
CAPTION_TEMPLATES = {
    "pictogram": ("{0}", "a photo of a {0}", "a picture of a {0}", "a drawing of a {0}", "{0} icon",
                  "a photo of {0}", "the {0}"),
    "drawing": ("{0}", "a photo of {0}", "a picture of {0}", "a drawing of {0}"),
    "digit": ("{0}", 'a photo of the number: "{0}"', "the number {0}", "the digit {0}",
              "the number {1}", "a photo of the digit {1}", "a handwritten {0}", 'the number "{0}"',
              "{1}"),
    "letter": ("{0}", 'a photo of the letter "{0}"', "the {1} letter {0}", "the letter {0}",
               'a photo of the {1} letter "{0}"', "a handwritten {0}"),
}  # fmt: skip
# Shares of a batch; digits come on top, each once.
SHARES = {"letter": 0.2, "drawing": 0.15, "pictogram": 0.65}
SAVE_EVERY = 100  # steps


class Corpus:
    """The rendered corpus in memory, and its sampler."""

    def __init__(self, path: Path):
        table = pq.read_table(path)
        self.images = torch.from_numpy(
            np.stack([np.asarray(Image.open(io.BytesIO(b))) for b in table["image"].to_pylist()])
        ).permute(0, 3, 1, 2)
        self.kind = np.array(table["kind"].to_pylist())
        self.noun = np.array(table["noun"].to_pylist(), dtype=object)
        self.tintable = table["tintable"].to_numpy(zero_copy_only=False)
        self.concepts = {
            kind: [np.flatnonzero((self.kind == kind) & (self.noun == noun))
                   for noun in sorted(set(self.noun[self.kind == kind]))]
            if kind in ("digit", "letter") else self._grouped(kind)
            for kind in CAPTION_TEMPLATES
        }  # fmt: skip

    def _grouped(self, kind: str) -> list[np.ndarray]:
        rows = np.flatnonzero(self.kind == kind)
        _, concept = np.unique(self.noun[rows].astype(str), return_inverse=True)
        order = np.argsort(concept, kind="stable")
        return np.split(rows[order], np.flatnonzero(np.diff(concept[order])) + 1)

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Row numbers of a batch in which every concept occurs once."""
        rows = [rng.choice(own) for own in self.concepts["digit"]]
        for kind, share in SHARES.items():
            concepts = self.concepts[kind]
            wanted = round(share * (size - len(self.concepts["digit"])))
            # A concept that many sets draw is met more often, but not in proportion.
            weight = np.sqrt([len(own) for own in concepts])
            chosen = rng.choice(len(concepts), wanted, replace=False, p=weight / weight.sum())
            rows += [rng.choice(concepts[i]) for i in chosen]
        return np.array(rows)


def draw_caption(kind: str, noun: str, colours: tuple[str, str] | None, rng) -> str:
    """One of the things that are true of the picture."""
    detail = DIGIT_NAMES[int(noun)] if kind == "digit" else "small" if noun.islower() else "capital"
    text = str(rng.choice(CAPTION_TEMPLATES[kind])).format(noun, detail)
    if colours and rng.random() < 0.3:
        text += f" in {colours[0]}" if rng.random() < 0.5 else f" in {colours[0]} on {colours[1]}"
    return text


def draw_batch(corpus: Corpus, size: int, side: int, rng: np.random.Generator):
    """Augmented pictures (B, 3, side, side) in [0, 1] and their captions."""
    rows = corpus.sample(size, rng)
    names = list(CORPUS_COLOURS)
    front, back, captions = [], [], []
    for row in rows:
        pair = rng.choice(names, 2, replace=False)
        if corpus.tintable[row] and rng.random() < 0.6:  # ink on paper, chalk on a board
            pair = ("white", "black") if rng.random() < 0.65 else ("black", "white")
        elif not corpus.tintable[row] and rng.random() < 0.7:
            pair = ("", str(rng.choice(("white", "black", "gray"))))
        front.append(CORPUS_COLOURS.get(pair[0], (0, 0, 0)))
        back.append(CORPUS_COLOURS[pair[1]])
        told = tuple(map(str, pair)) if corpus.tintable[row] else None
        captions.append(draw_caption(corpus.kind[row], corpus.noun[row], told, rng))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    written = torch.from_numpy(np.isin(corpus.kind[rows], ("digit", "letter")))
    drawn = torch.from_numpy(corpus.kind[rows] == "drawing")
    images = corpus.images[rows].float() / 255
    images = distort(images, side, written, drawn, generator)
    tinted = torch.from_numpy(corpus.tintable[rows])[:, None, None, None]
    colour, alpha = images[:, :3], images[:, 3:]
    alpha = change_pen(alpha, written, generator)
    colour = torch.where(tinted, torch.tensor(front)[:, :, None, None] / 255, colour)
    paper = torch.tensor(back)[:, :, None, None] / 255
    images = colour * alpha + paper * (1 - alpha)
    gray = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.15
    told = torch.tensor([any(f" {c}" in f" {t}" for c in names) for t in captions])
    gray &= ~told[:, None, None, None]  # a caption that names colours keeps them
    images = torch.where(gray, images.mean(1, keepdim=True), images)
    images = images + 0.04 * torch.rand(len(rows), 1, 1, 1, generator=generator) * torch.randn(
        images.shape, generator=generator
    )
    return images.clamp(0, 1), captions


def distort(images: Tensor, side: int, written: Tensor, drawn: Tensor, generator) -> Tensor:
    """Turn, shear, scale and shift each picture; bend what is written; resample to `side`."""
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    # Handwriting leans and varies more than pictures do; a drawn position is part of a caption.
    strength = 0.4 + 0.6 * written.float() - 0.3 * drawn.float()
    turn, shear = strength * uniform(-0.3, 0.3), strength * uniform(-0.5, 0.5)
    zoom = torch.where(written, uniform(0.8, 1.5), uniform(0.9, 1.25))
    zoom = torch.where(drawn, uniform(0.95, 1.05), zoom)
    stretch = 1 + strength * uniform(-0.25, 0.25)
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    shift = 0.18 * strength * zoom
    theta = torch.stack([
        torch.stack([cos * stretch, shear * cos - sin, shift * uniform(-1, 1)], 1),
        torch.stack([sin * stretch, shear * sin + cos, shift * uniform(-1, 1)], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
    field = torch.randn(n, 2, 4, 4, generator=generator) * 0.09 * written[:, None, None, None]
    bend = F.interpolate(field, (side, side), mode="bicubic", align_corners=True)
    # A transparent pixel's colour must not bleed into its neighbours: multiply, then divide.
    alpha = images[:, 3:]
    moved = F.grid_sample(
        torch.cat([images[:, :3] * alpha, alpha], 1),
        grid + bend.permute(0, 2, 3, 1),
        align_corners=False,
        padding_mode="zeros",
    )
    filled = moved[:, 3:].clamp(min=1e-3)
    return torch.cat([(moved[:, :3] / filled).clamp(0, 1), moved[:, 3:]], 1)


def change_pen(alpha: Tensor, written: Tensor, generator) -> Tensor:
    """Thicken, thin or coarsen some of what is written (pens differ; scans are coarse)."""
    side = alpha.shape[-1]
    choice = torch.rand(len(alpha), 1, 1, 1, generator=generator)
    written = written[:, None, None, None]
    thick = F.max_pool2d(alpha, 3, 1, 1)
    thin = -F.max_pool2d(-alpha, 2, 1, 1)[..., :side, :side]
    coarse = F.interpolate(
        F.interpolate(alpha, (11, 11), mode="area"), (side, side), mode="bicubic"
    ).clamp(0, 1)
    alpha = torch.where(written & (choice < 0.3), thick, alpha)
    alpha = torch.where(written & (choice > 0.88), thin, alpha)
    return torch.where(written & (choice > 0.5) & (choice < 0.65), coarse, alpha)


def build_vocabulary(corpus_path: Path, architecture: Path, model_dir: Path) -> None:
    """Cut CLIP's byte-pair merges to those that the corpus's captions use.

    Writes the merges to `model_dir`, and there a copy of the config file `architecture` with
    the vocabulary's new size.
    """
    used: set[tuple[str, str]] = set()

    class Recording(dict):
        def __contains__(self, pair):  # SimpleTokenizer.bpe asks this of each merge it applies
            found = super().__contains__(pair)
            if found:
                used.add(pair)
            return found

    full = open_clip.SimpleTokenizer()
    full.bpe_ranks = Recording(full.bpe_ranks)
    nouns = pq.read_table(corpus_path, columns=["noun"])["noun"].to_pylist()
    full(
        [
            *set(nouns),
            *CORPUS_COLOURS,
            *DIGIT_NAMES,
            *(t for ts in CAPTION_TEMPLATES.values() for t in ts),
        ]
    )
    config = json.loads(architecture.read_text())
    merges = sorted(used, key=dict(full.bpe_ranks).__getitem__)
    # CoCa predicts every token of a caption: a smaller vocabulary is a faster one.
    merges = merges[: config["foretune"].get("merges_kept")]
    for part in ("text_cfg", "multimodal_cfg"):
        if part in config["model_cfg"]:
            config["model_cfg"][part]["vocab_size"] = 2 * 256 + len(merges) + 2
    with atomic_write(model_dir / config["foretune"]["merges"]) as beside:
        text = "\n".join(["#version: cut to foretune's corpus", *map(" ".join, merges)])
        beside.write_bytes(gzip.compress(text.encode(), mtime=0))
    write_json(config, model_dir / CONFIG_NAME)


def contrastive_loss(model: torch.nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """The loss of a batch (B images and as many captions) that the model's family trains with."""
    if isinstance(model, open_clip.CoCa):
        features = model(images, tokens)
        # Only what is not padding: the same loss, without the softmax over the rest.
        told = features["labels"] != model.pad_id
        features |= {key: features[key][told][:, None] for key in ("logits", "labels")}
        weights = {"caption_loss_weight": 2.0, "clip_loss_weight": 1.0}  # as in CoCa's paper
        return sum(open_clip.CoCaLoss(**weights)(**features, output_dict=True).values())
    images = model.encode_image(images, normalize=True)
    texts = F.normalize(encode_text(model, tokens), dim=-1)
    if model.logit_bias is not None:
        return open_clip.loss.SigLipLoss()(images, texts, model.logit_scale.exp(), model.logit_bias)
    return open_clip.ClipLoss()(images, texts, model.logit_scale.exp())


def pretrain(
    model_dir: Path, corpus_path: Path, state_path: Path, seed: int, log=print
) -> list[dict]:
    """Train the model of `model_dir` from scratch and write its weights there.

    Goes on from `state_path` where an earlier call was killed. AdamW, cosine schedule with
    warm-up. Returns the mean loss and rate of every SAVE_EVERY steps.
    """
    torch.manual_seed(seed)
    recipe = json.loads((model_dir / CONFIG_NAME).read_text())["foretune"]["pretraining"]
    steps, batch_size = recipe["steps"], recipe["batch_size"]
    model, preprocess, tokenizer = load_model({"folder": model_dir}, weights=False)
    if isinstance(model, open_clip.CoCa):
        # open_clip leaves this layer as torch.empty gave it.
        head = model.text_decoder.text_projection
        torch.nn.init.normal_(head, std=len(head) ** -0.5)
    model.train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe["weight_decay"]}]
    groups += [{"params": kept, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    corpus, side = Corpus(corpus_path), model.visual.image_size[0]
    history: list[dict] = []
    done = 0
    made_from = {
        "corpus": digest_file(corpus_path), "config": (model_dir / CONFIG_NAME).read_text(),
        "seed": seed, "code": code_digest("suite.pretrain"),
    }  # fmt: skip
    if state := load_checkpoint(state_path, made_from, log):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, history = state["done"], state["history"]
    losses, started = [], time.monotonic()
    for step in range(done, steps):
        warm = (step + 1) / max(1, recipe["warmup"])
        rate = recipe["learning_rate"] * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
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
            history.append(
                {"step": step + 1, "loss": float(np.mean(losses)), "images_per_second": speed}
            )
            left = (steps - step - 1) * batch_size / speed / 60
            log(f"step {step + 1}/{steps}  loss {np.mean(losses):.3f}  "
                f"{speed:.0f} images/s  {left:.0f} min left")  # fmt: skip
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"done": step + 1, "history": history}
            save_checkpoint(state, state_path, made_from)
            losses, started = [], time.monotonic()
    save_weights(model, model_dir)
    return history
