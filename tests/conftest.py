"""Shared fixtures: a small task of real images, prepared and embedded by the bundled encoder."""

import os
from pathlib import Path

import hypothesis
import pytest

from checkout import CLIP_MINI, ROOT, copy_checkout

# A busy machine is no failure.
hypothesis.settings.register_profile("foretune", deadline=None)
hypothesis.settings.load_profile("foretune")

CHROMIUM = Path("/usr/bin/chromium")


# Of `make test`'s two workers, which take files in turns in this order at first: what starts many
# processes goes to one of them, and what takes long in one process to the other, early.
LONGEST = ["test_slurm", "test_real_size", "test_workflow", "test_finetune", "test_fetch"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (*LONGEST, item.path.stem).index(item.path.stem))


@pytest.fixture(scope="session")
def small_task(tmp_path_factory) -> Path:
    """Folder with `dataset/` (150 MNIST images) and `embeddings/` (all caches).

    `dataset/shifted/few` is a shifted test of its ten first test images, embedded too.
    """
    import pyarrow.parquet as pq

    from foretune.core.parquet import read_metadata, write_parquet
    from foretune.data.prepare import prepare_dataset, prepare_shifted_test
    from foretune.encoders.encode import embed_captions, embed_images

    folder = tmp_path_factory.mktemp("small_task")
    whole = ROOT / "resources/mini/mnist.parquet"
    table = pq.read_table(whole).take([*range(100), *range(2000, 2050)])
    write_parquet(table, folder / "source.parquet", read_metadata(whole))
    prepare_dataset("mnist", {"parquet": folder / "source.parquet"}, folder / "dataset", seed=0)
    embed_images(CLIP_MINI, folder / "dataset", folder / "embeddings")
    embed_captions(CLIP_MINI, folder / "dataset", None, folder / "embeddings/text.parquet")
    write_parquet(table.slice(100, 10), folder / "few.parquet", read_metadata(whole))
    spec, few = {"parquet": folder / "few.parquet"}, "shifted/few"
    prepare_shifted_test("few", spec, folder / "dataset", folder / "dataset" / few)
    embed_images(CLIP_MINI, folder / "dataset" / few, folder / "embeddings" / few)
    return folder


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the working tree's code and resources, to run Snakemake in."""
    return copy_checkout(tmp_path)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> tuple[Path, str]:
    """A checkout in which the smoke study ran to its end, and what that printed."""
    from smoke import run

    folder = copy_checkout(tmp_path_factory.mktemp("study"))
    return folder, run(folder)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, headless and without a network of its own."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is missing: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=quiet)
        yield browser
        browser.close()
