"""Images decoded and resized once for each preprocessing, as one array in a file.

Jobs of all methods and of all models that prepare images alike read the same file, mapped into
memory: from the second epoch on, and in every later job, an image costs the copy of its pixels.
The files may be deleted at any time; what is missing is made again.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor
from tqdm import tqdm

from foretune.core.files import atomic_write, digest_json
from foretune.data.prepared import decode_image, get_dataset_title, read_manifest, stream_split


def prepare_images(
    dataset: Path, split: str, preprocess, folder: Path | None = None, log=print
) -> np.ndarray:
    """The images of a prepared dataset's split: (N, 3, H, W) uint8, read-only where kept.

    dataset: the prepared dataset's folder; folder: where prepared images are kept, or None.
    Raises ForetuneError, which names the row, for an image that cannot be decoded.
    """
    manifest = read_manifest(dataset)
    name = f"{get_dataset_title(manifest)}, {split}"
    made_from = [repr(preprocess.config), manifest["digest"], split, PIL.__version__]
    path = folder and Path(folder) / f"{digest_json(made_from)}.npy"
    if path and path.exists():
        return np.load(path, mmap_mode="r")
    n = manifest["splits"][split]["rows"]

    def prepare(pair: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode_image(pair[1], f"{name}, {pair[0]}")).numpy()

    started = time.monotonic()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow lets go of Python's lock
        prepared = (
            image
            for some in stream_split(dataset, split)
            for image in pool.map(prepare, zip(*some, strict=True))
        )
        # Shown only where it takes long; so is the bar of encode_images.
        progress = iter(
            tqdm(prepared, f"{name}, preparing", n, mininterval=5, delay=5, unit="image")
        )
        first = next(progress)  # only an image tells the size
        shape = (n, *first.shape)
        if path is None:
            images = fill_array(np.empty(shape, np.uint8), first, progress)
        else:
            with atomic_write(path) as beside:
                kept = np.lib.format.open_memmap(beside, "w+", np.uint8, shape)
                fill_array(kept, first, progress).flush()
            images = np.load(path, mmap_mode="r")
    rate = n / (time.monotonic() - started)
    log(f"{name}: {n} images prepared, {rate:.0f} images/s")
    return images


def fill_array(images: np.ndarray, first: np.ndarray, others) -> np.ndarray:
    images[0] = first
    for number, image in enumerate(others, start=1):
        images[number] = image
    return images


def load_batch(images: np.ndarray, which: slice | np.ndarray, device: str | torch.device) -> Tensor:
    """A batch of prepared images on the device; pinned on its way to a GPU."""
    batch = torch.from_numpy(np.array(images[which]))
    if torch.device(device).type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch
