"""The image cache: images decoded and resized once per preprocessing, as one array in a file.

Jobs of all methods, and of all models with the same preprocessing, map the same file into memory.
From the second epoch on, and in every later job, an image costs only the copy of its pixels. The
files may be deleted at any time and are made again when needed.
"""

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

from foretune.core.code_digest import code_digest
from foretune.core.files import atomic_write, digest_json
from foretune.core.locks import exclusive_lock
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

    If several jobs ask for the same images at a time, one prepares them and the others wait.

    Args:
        dataset: folder of the prepared dataset.
        folder: where the cache's files are; None prepares the images in memory.

    Raises:
        ForetuneError: an image cannot be decoded, and the message names the row; or the disk of
            `folder` is full.
    """
    manifest = read_manifest(dataset)
    name = f"{get_dataset_title(manifest)}, {split}"
    # The pixels also depend on the code that decodes and resizes, which is ours and two libraries'.
    made_from = [
        repr(preprocess.config), manifest["splits"][split]["digest"], PIL.__version__,
        torchvision.__version__, code_digest("encoders.image_cache"),
    ]  # fmt: skip
    n = manifest["splits"][split]["rows"]

    def prepare(row: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode_image(row[1], f"{name}, {row[0]}")).numpy()

    def prepare_all() -> Generator[np.ndarray, None, None]:
        started = time.monotonic()
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow releases the GIL
            prepared = (
                image
                for ids, encoded in stream_split(dataset, split)
                for image in pool.map(prepare, zip(ids, encoded, strict=True))
            )
            # The bar appears only if it takes long, like that of encode_images.
            yield from tqdm(prepared, f"{name}, preparing", n, mininterval=5, delay=5, unit="image")
        rate = n / (time.monotonic() - started)
        log(f"{name}: {n} images prepared, {rate:.0f} images/s")

    if folder is None:
        images = prepare_all()
        first = next(images)  # the size is known from an image only
        return np.fromiter(chain([first], images), np.dtype((np.uint8, first.shape)), n)
    path = Path(folder) / f"{digest_json(made_from)}.npy"
    if not path.exists():
        with exclusive_lock(folder, path.name):
            if not path.exists():  # another job may have prepared them meanwhile
                with atomic_write(path) as temporary, closing(prepare_all()) as images:
                    write_array(temporary, images, n)
    return np.load(path, mmap_mode="r")


def write_array(path: Path, images: Iterable[np.ndarray], n: int) -> None:
    """Write `n` uint8 images of one size as one array in NumPy's format, one after the other.

    Writing into a map of the file would end with SIGBUS, without a message, on a full disk.
    """
    with open(path, "wb") as file:
        for number, image in enumerate(images):
            if not number:
                header = {"descr": "|u1", "fortran_order": False, "shape": (n, *image.shape)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(image).data)


def load_batch(images: np.ndarray, rows: slice | np.ndarray, device: str | torch.device) -> Tensor:
    """Return a batch of prepared images on the device, through pinned memory if it is a GPU."""
    batch = torch.from_numpy(np.array(images[rows]))
    if torch.device(device).type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch
