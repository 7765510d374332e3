"""Forward passes that fill the embedding caches."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from foretune.data.prepared import read_manifest, read_split
from foretune.encoders.cache import write_embeddings
from foretune.encoders.image_cache import load_batch, prepare_images
from foretune.encoders.loading import Preprocess, digest_weights, encode_text, load_model
from foretune.encoders.shards import prepare_rows, shard_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a CPU, the activations of more images do not fit its caches: half as fast again with 64 of a
# mini encoder's as with 256 (benchmarks/training.md).
ENCODE_BATCH = 256 if DEVICE == "cuda" else 64


@torch.inference_mode()
def encode_images(
    model: nn.Module, preprocess: Preprocess, images: np.ndarray, batch_size: int = ENCODE_BATCH
) -> Tensor:
    """Raw image embeddings (N, d) of prepared images (N, 3, H, W), on the CPU."""
    device = next(model.parameters()).device
    starts = range(0, len(images), batch_size)
    vectors = []
    for start in tqdm(starts, "encoding", mininterval=5, delay=5, unit="batch"):
        batch = load_batch(images, slice(start, start + batch_size), device)
        encoded = model.encode_image(preprocess.normalize(batch), normalize=False)
        vectors.append(encoded.float().cpu())
    return torch.cat(vectors)


@torch.inference_mode()
def encode_captions(model: nn.Module, tokenizer, captions: list[str]) -> Tensor:
    """Raw caption embeddings (C, d), on the CPU."""
    device = next(model.parameters()).device
    return encode_text(model, tokenizer(captions).to(device)).float().cpu()


def embed_images(
    model_spec: dict,
    dataset: Path,
    output: Path,
    prepared: Path | None = None,
    log=print,
    shard: tuple[int, int] | None = None,
) -> None:
    """Write `output/{split}.parquet` for each split of a prepared dataset.

    prepared: the folder where prepared images are kept (see images.py); None keeps none.
    shard: (k, n) for the k-th of n parts of each split, of which no image is kept (see shards.py).
    """
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
        rows, facts = read_split(dataset, split, ["id", "label"]), {**provenance, "split": split}
        if shard:
            start, stop = shard_rows(len(rows), *shard)
            facts["shard"] = [start, stop, len(rows)]
            rows = rows.slice(start, stop - start)
            parts = prepare_rows(dataset, split, preprocess, start, stop)
        else:
            parts = [prepare_images(dataset, split, preprocess, prepared, log)]
        started = time.monotonic()
        vectors = [encode_images(model, preprocess, images) for images in parts]
        if not vectors:  # a shard of a split that is too small for so many
            vectors = [encode_captions(model, tokenizer, manifest["classes"])[:0]]
        log(f"{len(rows)} images embedded, {len(rows) / (time.monotonic() - started):.0f} images/s")
        columns = {"id": rows["id"], "label": rows["label"]}
        write_embeddings(output / f"{split}.parquet", torch.cat(vectors).numpy(), columns, facts)
    if "parent" not in manifest:  # a shifted test's captions are those of the task it belongs to
        own = output / "own_text.parquet"
        write_caption_embeddings((model, preprocess, tokenizer), manifest, manifest["caption"], own)


def embed_captions(model_spec: dict, dataset: Path, template: str | None, output: Path) -> None:
    """Write `text.parquet`: one caption a class, from the template or the dataset's own."""
    manifest = read_manifest(dataset)
    write_caption_embeddings(
        load_model(model_spec, DEVICE), manifest, template or manifest["caption"], output
    )


def write_caption_embeddings(loaded: tuple, manifest: dict, template: str, output: Path) -> None:
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
