"""The image cache: images decoded and resized once per preprocessing, as one array in a file.

Jobs of all methods, and of all models with the same preprocessing, map the same file into memory.
From the second epoch on, and in every later job, an image costs only the copy of its pixels. The
files may be deleted at any time and are made again when needed.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from foretune.core.code_digest import code_digest
from foretune.core.files import atomic_write, digest_json
from foretune.data.prepared import decode_image, get_dataset_title, read_manifest, stream_split
from foretune.encoders.preprocess import Preprocess


def prepare_images(
    dataset: Path,
    split: str,
    preprocess: Preprocess,
    folder: Path | None = None,
    log: Callable[[str], object] = print,
) -> np.ndarray:
    """Return the prepared images of a split: (N, 3, H, W) uint8, read-only if they are cached.

    Args:
        dataset: folder of the prepared dataset.
        folder: where the cache's files are; None prepares the images in memory.

    Raises:
        ForetuneError: an image cannot be decoded; the message names the row.
    """
    manifest = read_manifest(dataset)
    name = f"{get_dataset_title(manifest)}, {split}"
    # The pixels also depend on the code that decodes and resizes, which is ours and two libraries'.
    made_from = [
        repr(preprocess.config), manifest["splits"][split]["digest"], PIL.__version__,
        torchvision.__version__, code_digest("encoders.image_cache"),
    ]  # fmt: skip
    path = folder and Path(folder) / f"{digest_json(made_from)}.npy"
    if path and path.exists():
        return np.load(path, mmap_mode="r")
    n = manifest["splits"][split]["rows"]

    def prepare(row: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode_image(row[1], f"{name}, {row[0]}")).numpy()

    started = time.monotonic()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow releases the GIL
        prepared = (
            image
            for ids, encoded in stream_split(dataset, split)
            for image in pool.map(prepare, zip(ids, encoded, strict=True))
        )
        # The bar appears only if it takes long, like that of encode_images.
        progress = iter(
            tqdm(prepared, f"{name}, preparing", n, mininterval=5, delay=5, unit="image")
        )
        first = next(progress)  # the size is known from an image only
        shape = (n, *first.shape)
        if path is None:
            images = np.empty(shape, np.uint8)
            fill_array(images, first, progress)
        else:
            with atomic_write(path) as temporary:
                mapped = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                fill_array(mapped, first, progress)
                mapped.flush()
            images = np.load(path, mmap_mode="r")
    rate = n / (time.monotonic() - started)
    log(f"{name}: {n} images prepared, {rate:.0f} images/s")
    return images


def fill_array(images: np.ndarray, first: np.ndarray, others: Iterable[np.ndarray]) -> None:
    """Copy an image and those that follow it into an array."""
    images[0] = first
    for number, image in enumerate(others, start=1):
        images[number] = image


def load_batch(images: np.ndarray, rows: slice | np.ndarray, device: str | torch.device) -> Tensor:
    """Return a batch of prepared images on the device, through pinned memory if it is a GPU."""
    batch = torch.from_numpy(np.array(images[rows]))
    if torch.device(device).type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch
