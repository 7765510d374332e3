"""The image cache: prepared once by jobs that run at the same time, and the same in memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torchvision.transforms import v2

from foretune.encoders import image_cache
from foretune.encoders.image_cache import prepare_images


class Preprocess:
    config = "28 pixels"

    def __call__(self, image):
        return v2.functional.pil_to_tensor(image.convert("RGB").resize((28, 28)))


def test_prepare_images_of_jobs_at_the_same_time_decodes_once(small_task, tmp_path, monkeypatch):
    decoded = []
    decode_image = image_cache.decode_image

    def count(encoded, where):
        decoded.append(where)
        return decode_image(encoded, where)

    monkeypatch.setattr(image_cache, "decode_image", count)

    def prepare(_):
        return prepare_images(small_task / "dataset", "val", Preprocess(), tmp_path, lambda _: None)

    with ThreadPoolExecutor(3) as pool:
        arrays = list(pool.map(prepare, range(3)))
    assert len(decoded) == len(arrays[0]) > 5
    assert all(np.array_equal(array, arrays[0]) for array in arrays)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".npy"]


def test_prepare_images_is_the_same_in_memory_and_in_a_file(small_task, tmp_path):
    dataset = small_task / "dataset"
    in_memory = prepare_images(dataset, "test", Preprocess(), log=lambda _: None)
    in_file = prepare_images(dataset, "test", Preprocess(), tmp_path / "new", lambda _: None)
    assert in_memory.shape[1:] == (3, 28, 28) and in_memory.dtype == np.uint8
    assert not in_file.flags.writeable
    np.testing.assert_array_equal(in_memory, in_file)
    assert torch.equal(
        image_cache.load_batch(in_file, slice(2, 4), "cpu"), torch.tensor(in_memory[2:4])
    )
