"""Shared fixtures, and the order in which the workers of `make test` get the tests."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from checkout import CLIP_MINI, ROOT, copy_checkout
from real_parts import refuse_missing

# Without a deadline, because a test on a busy machine may be slow.
hypothesis.settings.register_profile("foretune", deadline=None)
hypothesis.settings.load_profile("foretune")

CHROMIUM = Path("/usr/bin/chromium")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Start the modules marked `long` first.

    The workers of `make test` take the modules in this order. The many short ones at the end let
    all finish at about the same time.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def small_task(tmp_path_factory) -> Path:
    """Return a folder with 150 MNIST images in `dataset/` and their caches in `embeddings/`.

    The bundled encoder computed the embeddings. `dataset/shifted/few` is a shifted test of the
    first ten test images, which is embedded too.
    """
    import pyarrow.parquet as pq

    from foretune.core.parquet import read_metadata, write_parquet
    from foretune.data.prepare import prepare_dataset, prepare_shifted_test
    from foretune.encoders.encode import embed_captions, embed_images

    folder = tmp_path_factory.mktemp("small_task")
    mnist = ROOT / "resources/mini/mnist.parquet"
    table = pq.read_table(mnist).take([*range(100), *range(2000, 2050)])
    write_parquet(table, folder / "source.parquet", read_metadata(mnist))
    prepare_dataset("mnist", {"parquet": folder / "source.parquet"}, folder / "dataset", seed=0)
    embed_images(CLIP_MINI, folder / "dataset", folder / "embeddings")
    embed_captions(CLIP_MINI, folder / "dataset", None, folder / "embeddings/text.parquet")
    write_parquet(table.slice(100, 10), folder / "few.parquet", read_metadata(mnist))
    spec, few = {"parquet": folder / "few.parquet"}, "shifted/few"
    prepare_shifted_test("few", spec, folder / "dataset", folder / "dataset" / few)
    embed_images(CLIP_MINI, folder / "dataset" / few, folder / "embeddings" / few)
    return folder


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Return a copy of the working tree's code and resources, to run Snakemake in."""
    return copy_checkout(tmp_path)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> tuple[Path, str]:
    """Return a checkout in which the smoke study is complete, and what its run printed.

    The first worker that needs the study runs it. Each worker gets a copy, which its tests change.
    """
    from smoke import COMMAND, ENV, take_fewer_images

    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # common to the workers
    record = session / "study.json"
    with FileLock(session / "study.lock"):
        if not record.exists():
            original = copy_checkout(Path(tempfile.mkdtemp(prefix="study", dir=session)))
            take_fewer_images(original)
            # As a user starts it, while most tests run Snakemake in children of pytest.
            done = subprocess.run(
                COMMAND, cwd=original, env=ENV, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-5000:]
            record.write_text(json.dumps([str(original), done.stdout]))
    original, printed = json.loads(record.read_text())
    folder = tmp_path_factory.mktemp("study") / "checkout"
    shutil.copytree(original, folder)
    return folder, printed


@pytest.fixture(scope="session")
def browser():
    """Yield Debian's Chromium, headless and without its background network traffic."""
    refuse_missing(
        None if CHROMIUM.exists() else f"{CHROMIUM} is missing: apt-get install chromium"
    )
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()
