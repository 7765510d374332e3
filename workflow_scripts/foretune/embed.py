"""Forward passes that fill the embedding caches."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from tqdm import tqdm

from foretune.datasets import decode, read_manifest, read_split, title_of
from foretune.embeddings import write_embeddings
from foretune.models import Preprocess, digest_weights, encode_text, load_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load_images(rows: pa.Table, preprocess: Preprocess, name: str, log=print) -> Tensor:
    """All images of a split, decoded and resized once: (N, 3, H, W) uint8."""
    started, images = time.monotonic(), None
    pairs = zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True)
    # Shown only where it takes long; so is the bar of encode_images.
    progress = tqdm(pairs, f"{name}, preparing", len(rows), mininterval=5, delay=5, unit="image")
    for number, (identity, encoded) in enumerate(progress):
        image = preprocess(decode(encoded, f"{name}, {identity}"))
        if images is None:  # only the first image tells the size
            images = torch.empty((len(rows), *image.shape), dtype=torch.uint8)
        images[number] = image
    rate = len(rows) / (time.monotonic() - started)
    log(f"{name}: {len(rows)} images prepared, {rate:.0f} images/s")
    return images


@torch.inference_mode()
def encode_images(
    model: nn.Module, preprocess: Preprocess, images: Tensor, batch_size: int = 256
) -> Tensor:
    """Raw image embeddings (N, d) of prepared images, on the CPU."""
    device = next(model.parameters()).device
    batches = tqdm(images.split(batch_size), "encoding", mininterval=5, delay=5, unit="batch")
    return torch.cat(
        [model.encode_image(preprocess.normalize(batch.to(device)), normalize=False).float().cpu()
         for batch in batches]
    )  # fmt: skip


@torch.inference_mode()
def encode_captions(model: nn.Module, tokenizer, captions: list[str]) -> Tensor:
    """Raw caption embeddings (C, d), on the CPU."""
    device = next(model.parameters()).device
    return encode_text(model, tokenizer(captions).to(device)).float().cpu()


def embed_images(model_spec: dict, dataset: Path, output: Path, log=print) -> None:
    """Write `output/{split}.parquet` for each split of a prepared dataset."""
    model, preprocess, tokenizer = load_model(model_spec, DEVICE)
    manifest = read_manifest(dataset)
    provenance = {
        "kind": "images",
        "weights": digest_weights(model),
        "preprocessing": repr(preprocess.config),
        "precision": "float32",
        "dataset": manifest["digest"],
    }
    for split in manifest["splits"]:
        rows = read_split(dataset, split)
        images = load_images(rows, preprocess, f"{title_of(manifest)}, {split}", log)
        started = time.monotonic()
        vectors = encode_images(model, preprocess, images).numpy()
        log(f"{len(rows)} images embedded, {len(rows) / (time.monotonic() - started):.0f} images/s")
        columns = {"id": rows["id"], "label": rows["label"]}
        write_embeddings(
            output / f"{split}.parquet", vectors, columns, {**provenance, "split": split}
        )
    if "parent" not in manifest:  # a shifted test's captions are those of the task it belongs to
        own = output / "own_text.parquet"
        write_captions((model, preprocess, tokenizer), manifest, manifest["caption"], own)


def embed_captions(model_spec: dict, dataset: Path, template: str | None, output: Path) -> None:
    """Write `text.parquet`: one caption a class, from the template or the dataset's own."""
    manifest = read_manifest(dataset)
    write_captions(
        load_model(model_spec, DEVICE), manifest, template or manifest["caption"], output
    )


def write_captions(loaded: tuple, manifest: dict, template: str, output: Path) -> None:
    """loaded: (model, preprocess, tokenizer)."""
    model, preprocess, tokenizer = loaded
    captions = [template.replace("{}", name) for name in manifest["classes"]]
    vectors = encode_captions(model, tokenizer, captions).numpy()
    columns = {
        "label": np.arange(len(captions), dtype=np.int32),
        "class": manifest["classes"],
        "caption": captions,
    }
    provenance = {
        "kind": "captions",
        "weights": digest_weights(model),
        "precision": "float32",
        "dataset": manifest["digest"],
        "preprocessing": repr(preprocess.config),
        "template": template,
        "logit_scale": model.logit_scale.exp().item(),  # an adapter's logits need it
    }
    write_embeddings(output, vectors, columns, provenance)
