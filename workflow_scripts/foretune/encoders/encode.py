"""Forward passes that fill the embedding caches."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.data.prepared import Manifest, read_manifest, read_split
from foretune.encoders.cache import write_embeddings
from foretune.encoders.captions import (
    Captions,
    find_first_equal,
    make_captions,
    note_equal_captions,
    read_class_captions,
)
from foretune.encoders.hidden import record_hidden_features
from foretune.encoders.hub_models import get_revision
from foretune.encoders.image_cache import load_batch, prepare_images
from foretune.encoders.loading import (
    DualEncoder,
    LoadedModel,
    Preprocess,
    Tokenizer,
    digest_weights,
    encode_text,
    load_model,
)
from foretune.encoders.pooled import remove_projection
from foretune.encoders.shards import prepare_rows, shard_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a CPU, the activations of more images do not fit in its caches: a mini encoder is half as fast
# again with batches of 64 as with 256 (benchmarks/training.md).
ENCODE_BATCH = 256 if DEVICE == "cuda" else 64
CAPTION_BATCH = 512  # captions per forward pass: lists of templates make many thousands


@torch.inference_mode()
def encode_images(
    model: DualEncoder, preprocess: Preprocess, images: np.ndarray, batch_size: int = ENCODE_BATCH
) -> Tensor:
    """Return the raw embeddings (N, d) of prepared images (N, 3, H, W), on the CPU.

    If the GPU's memory is too small for a batch, smaller ones follow, and a line says their size.

    Raises:
        ForetuneError: a single image does not fit.
    """
    device = next(model.parameters()).device
    vectors: list[Tensor] = []
    start, size = 0, batch_size
    with tqdm(desc="encoding", total=len(images), mininterval=5, delay=5, unit="image") as bar:
        while start < len(images):
            batch = images[start : start + size]
            try:
                pixels = preprocess.normalize(load_batch(batch, slice(None), device))
                vectors.append(model.encode_image(pixels, normalize=False).float().cpu())
            except torch.OutOfMemoryError:
                size = halve_batch(len(batch))
                torch.cuda.empty_cache()
                continue
            start += len(batch)
            bar.update(len(batch))
    return torch.cat(vectors)


def halve_batch(size: int) -> int:
    """Return half the size of a batch that did not fit a GPU's memory, and print what to set.

    Raises ForetuneError for a single image.
    """
    if size == 1:
        raise ForetuneError("a single image does not fit the GPU's memory: choose a smaller model")
    print(
        f"{size} images at a time do not fit the GPU's memory: going on with {size // 2}; set "
        f"`encode_batch_size: {size // 2}` in the model's entry",
        flush=True,
    )
    return size // 2


@torch.inference_mode()
def encode_captions(model: DualEncoder, tokenizer: Tokenizer, captions: Captions) -> Tensor:
    """Return the raw embeddings (C, d) of the captions of C classes, on the CPU.

    That of a class with several captions points along the mean of their unit vectors, and is as
    long as they are on average (Radford et al. 2021, arXiv:2103.00020, section 3.1.4).
    """
    device = next(model.parameters()).device
    flat = [caption for of_class in captions for caption in of_class]
    batches = (flat[i : i + CAPTION_BATCH] for i in range(0, len(flat), CAPTION_BATCH))
    # A batch is cut to its longest caption, so that batches of other captions have other lengths.
    vectors = torch.cat([
        encode_text(model, tokenizer(batch).to(device)).float().cpu() for batch in batches
    ])  # fmt: skip
    if len(flat) == len(captions):
        return vectors
    means = []
    for of_class in vectors.split([len(of_class) for of_class in captions]):
        direction = F.normalize(F.normalize(of_class, dim=1).mean(dim=0), dim=0)
        means.append(direction * of_class.norm(dim=1).mean())
    return torch.stack(means)


def embed_images(
    model_spec: ModelSpec,
    dataset: Path,
    output: Path,
    prepared: Path | None = None,
    log: Callable[[str], object] = print,
    shard: tuple[int, int] | None = None,
    batch_size: int | None = None,
    pooled: bool = False,
) -> None:
    """Write `output/{split}.parquet` for each split of a prepared dataset.

    Also write `output/train_hidden.parquet`, the hidden features of the training images (see
    encoders/hidden.py), or their embeddings again if the image tower has no blocks; and
    `output/own_text.parquet`, the embeddings of the dataset's own captions. A shifted test has
    neither training images nor captions of its own.

    Args:
        prepared: folder of the image cache; None caches no images.
        shard: (k, n) embeds the k-th of n shards of each split, from 0 on, and caches no images.
        batch_size: images per forward pass; None takes ENCODE_BATCH.
        pooled: write pooled outputs (see encoders/pooled.py) in their place, and nothing else.
    """
    size = batch_size or ENCODE_BATCH
    loaded = load_model(model_spec, DEVICE)
    manifest = read_manifest(dataset)
    provenance = {
        "kind": "pooled" if pooled else "images",
        "weights": digest_weights(loaded.model),
        "preprocessing": repr(loaded.preprocess.config),
        "precision": "float32",
        "dataset": manifest["digest"],
        "revision": get_revision(model_spec),  # of the hub's repository, for provenance
    }
    visual = loaded.model.visual
    if pooled:  # after the digest of the weights, which is that of the whole model
        remove_projection(visual)
    for split in manifest["splits"]:
        rows = read_split(dataset, split, ["id", "label", "group"])
        metadata: dict[str, Any] = {**provenance, "split": split}
        parts: Iterable[np.ndarray]
        if shard:
            start, stop = shard_rows(len(rows), *shard)
            metadata["shard"] = [start, stop, len(rows)]
            rows = rows.slice(start, stop - start)
            parts = prepare_rows(dataset, split, loaded.preprocess, start, stop)
        else:
            parts = [prepare_images(dataset, split, loaded.preprocess, prepared, log)]
        started = time.monotonic()
        with record_hidden_features(visual) as hidden:
            vectors = [encode_images(*loaded[:2], images, size) for images in parts]
            if not vectors:  # an empty shard still has the widths of the vectors
                blank = loaded.preprocess(Image.new("RGB", (8, 8))).numpy()[None]
                vectors = [encode_images(*loaded[:2], blank)[:0]]
                hidden[:] = [hidden[0][:0]] if hidden else []
        log(f"{len(rows)} images embedded, {len(rows) / (time.monotonic() - started):.0f} images/s")
        columns = {"id": rows["id"], "label": rows["label"], "group": rows["group"]}
        write_embeddings(output / f"{split}.parquet", torch.cat(vectors).numpy(), columns, metadata)
        if split == "train" and not pooled:
            path = output / "train_hidden.parquet"
            features = torch.cat(hidden or vectors).numpy()
            write_embeddings(path, features, columns, metadata | {"kind": "hidden"})
    if "parent" not in manifest and not pooled:
        path = output / "own_text.parquet"
        captions = make_captions(manifest["classes"], manifest["caption"])
        write_caption_embeddings(loaded, manifest, captions, path, log)


def embed_captions(
    model_spec: ModelSpec,
    dataset: Path,
    caption: str | list[str] | None,
    output: Path,
    log: Callable[[str], object] = print,
) -> None:
    """Write the embeddings of the captions of a dataset's classes to the file `output`.

    caption: a template with {} for the class name, several, or a JSON file that
        `read_class_captions` reads; None takes the dataset's own template.
    """
    manifest = read_manifest(dataset)
    if isinstance(caption, str) and "{}" not in caption:
        captions = read_class_captions(Path(caption), manifest["classes"])
    else:
        captions = make_captions(manifest["classes"], caption or manifest["caption"])
    write_caption_embeddings(load_model(model_spec, DEVICE), manifest, captions, output, log)


def write_caption_embeddings(
    loaded: LoadedModel,
    manifest: Manifest,
    captions: Captions,
    output: Path,
    log: Callable[[str], object] = print,
) -> None:
    """Write the embeddings of the captions, one vector per class.

    A line warns of classes that the model cannot tell apart, since their captions have the same
    tokens.
    """
    same_as = find_first_equal(tokenize_classes(loaded.tokenizer, captions))
    for note in note_equal_captions(same_as, manifest["classes"]):
        log(f"warning: {note}")
    columns = {
        "label": np.arange(len(captions), dtype=np.int32),
        "class": manifest["classes"],
        "captions": captions,
        # The first label whose captions have the same tokens: a tokenizer may cut, or fold case.
        "same_tokens_as": same_as,
    }
    metadata = {
        "kind": "captions",
        "weights": digest_weights(loaded.model),
        "precision": "float32",
        "dataset": manifest["digest"],
        "preprocessing": repr(loaded.preprocess.config),
        "logit_scale": loaded.model.logit_scale.exp().item(),  # for an adapter's logits
    }
    vectors = encode_captions(loaded.model, loaded.tokenizer, captions).numpy()
    write_embeddings(output, vectors, columns, metadata)


def tokenize_classes(tokenizer: Tokenizer, captions: Captions) -> list[bytes]:
    """Return the tokens of all captions of each class, as bytes."""
    return [np.asarray(tokenizer(of_class)).tobytes() for of_class in captions]
