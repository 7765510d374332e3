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
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from foretune.datasets import decode, read_manifest, stream_split, title_of
from foretune.files import digest_json, whole_file


def prepare_images(
    dataset: Path, split: str, preprocess, folder: Path | None = None, log=print
) -> np.ndarray:
    """The images of a prepared dataset's split: (N, 3, H, W) uint8, read-only where kept.

    dataset: the prepared dataset's folder; folder: where prepared images are kept, or None.
    Raises ForetuneError, which names the row, for an image that cannot be decoded.
    """
    manifest = read_manifest(dataset)
    name = f"{title_of(manifest)}, {split}"
    made_from = [repr(preprocess.config), manifest["digest"], split, PIL.__version__]
    path = folder and Path(folder) / f"{digest_json(made_from)}.npy"
    if path and path.exists():
        return np.load(path, mmap_mode="r")
    n = manifest["splits"][split]["rows"]

    def prepare(pair: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode(pair[1], f"{name}, {pair[0]}")).numpy()

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
            images = fill(np.empty(shape, np.uint8), first, progress)
        else:
            with whole_file(path) as beside:
                kept = np.lib.format.open_memmap(beside, "w+", np.uint8, shape)
                fill(kept, first, progress).flush()
            images = np.load(path, mmap_mode="r")
    rate = n / (time.monotonic() - started)
    log(f"{name}: {n} images prepared, {rate:.0f} images/s")
    return images


def fill(images: np.ndarray, first: np.ndarray, others) -> np.ndarray:
    images[0] = first
    for number, image in enumerate(others, start=1):
        images[number] = image
    return images


def take(images: np.ndarray, which: slice | np.ndarray, device: str | torch.device) -> Tensor:
    """A batch of prepared images on the device; pinned on its way to a GPU."""
    batch = torch.from_numpy(np.array(images[which]))
    if torch.device(device).type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch


def augment(images: Tensor, settings: dict, draws: Tensor) -> Tensor:
    """Random crops, scaled back to full size, and horizontal flips of a batch (B, 3, H, W).

    settings: `crop`, the least share of the area that is kept (its aspect ratio is), and `flip`;
    draws: (4, B), uniform in [0, 1).
    """
    if settings["crop"] == 1 and not settings["flip"]:
        return images
    draws = draws.to(images.device)
    side = (settings["crop"] + (1 - settings["crop"]) * draws[0]).sqrt()
    mirror = torch.where(draws[3] < 0.5, -1.0, 1.0) if settings["flip"] else torch.ones_like(side)
    # In units of half a side: the crop's centre stays so far from the middle that it is inside.
    centre = (2 * draws[1:3] - 1) * (1 - side)
    zero = torch.zeros_like(side)
    affine = torch.stack(
        [torch.stack([side * mirror, zero, centre[0]], dim=1),
         torch.stack([zero, side, centre[1]], dim=1)], dim=1,
    )  # fmt: skip
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
