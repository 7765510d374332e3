"""Fetch a study's public datasets and weights once, on a machine with a network.

A download that breaks off resumes where it stopped when it is tried again, at once or by the next
run. The jobs of a study fetch nothing.
"""

import inspect
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import explain_disk_error, link_or_copy
from foretune.core.locks import exclusive_lock
from foretune.data.sources.read import read_source
from foretune.data.sources.registry import explain_dataset_fetch
from foretune.data.sources.revisions import list_fetched_revisions
from foretune.planning.download import download_file
from foretune.planning.fetch_list import DatasetItem, ModelItem, get_hub_patterns

# The private functions of torchvision.datasets.utils that `resume_downloads` replaces, with the
# arguments that torchvision passes.
REPLACED_FUNCTIONS = {"_get_redirect_url": ["url", "max_hops"], "_urlretrieve": ["url", "filename"]}


def fetch_items(items: list[DatasetItem | ModelItem], log=print) -> None:
    """Fetch what is missing, and read everything as a job would.

    Raises ForetuneError with a line for each item that failed, after all have been tried.
    """
    failed = []
    for item in items:
        names = ", ".join(item.names)
        try:
            log(f"{names}: {fetch_item(item)}")
        except ForetuneError as error:
            log(f"{names}: FAILED")
            failed.append(f"{names}: {error}")
    if failed:
        raise ForetuneError("\n".join([f"{len(failed)} of {len(items)} are missing:", *failed]))


def fetch_item(item: DatasetItem | ModelItem) -> str:
    """Fetch one item, then read it as a job would. Return its digest or its numbers of images."""
    if isinstance(item, ModelItem):
        from foretune.encoders.hub_models import get_revision
        from foretune.encoders.loading import digest_weights, load_model

        weights = f"weights {digest_weights(load_model(item.spec)[0])[:12]}"
        revision = get_revision(item.spec)
        return f"{weights}, revision {revision}" if revision else weights
    if "torchvision" in item.spec:
        fetch_torchvision(item.spec)
    elif item.hub_name:
        fetch_from_hub(item, item.hub_name)
    splits = ("train", "test") if "train" in item.splits else ("test",)
    source = read_source(item.spec, splits)
    counts = ", ".join(f"{rows.n} {split}" for split, rows in source.rows.items())
    revisions = list_fetched_revisions(Path(item.where)) if item.hub_name else []
    return "; ".join(
        [f"{len(source.classes)} classes", counts, *(f"revision {r}" for r in revisions)]
    )


def fetch_from_hub(item: DatasetItem, name: str) -> None:
    from huggingface_hub import snapshot_download

    try:
        # It resumes a file that broke off, and only checks whether a complete one has changed.
        snapshot_download(
            name, repo_type="dataset", local_dir=item.where, allow_patterns=get_hub_patterns(item),
            revision=item.spec.get("revision"),
        )  # fmt: skip
    except Exception as error:  # the hub's, httpx's and the system's
        reason = str(error).strip().splitlines()[0]
        raise ForetuneError(
            f"{name} cannot be fetched ({type(error).__name__}: {reason}); run it again to resume "
            f"where it stopped; {explain_dataset_fetch(item.spec)}; if the dataset has terms, "
            "accept them on its page, then run `hf auth login`"
        ) from None


def fetch_torchvision(spec: SourceSpec) -> None:
    """Let torchvision download and unpack a dataset, and move it to `root` when it is complete.

    torchvision takes a folder that it has half unpacked for a complete one, so it works in a
    hidden folder next to `root`. Archives go to `{root}.downloads`; one that a user has put there
    is taken instead of a download.
    """
    from torchvision import datasets

    root, dataset_class = Path(spec["root"]), getattr(datasets, spec["torchvision"])
    if root.exists():
        return
    if spec["torchvision"] == "StanfordCars":
        raise ForetuneError(f"torchvision cannot download it; {explain_dataset_fetch(spec)}")
    accepted = inspect.signature(dataset_class).parameters
    splits: list[dict] = [{}]
    if "split" in accepted:
        splits = [{"split": "train"}, {"split": "test"}]
    elif "train" in accepted:
        splits = [{"train": True}, {"train": False}]
    downloads, unpacked = root.with_name(f"{root.name}.downloads"), root.with_name(f".{root.name}")
    with exclusive_lock(downloads), resume_downloads(downloads, spec) as archives:
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        try:
            for split in splits:
                dataset_class(unpacked, download=True, **split)
        except ForetuneError:
            raise
        except Exception as error:  # a wrong checksum, a broken archive, a full disk
            if reason := explain_disk_error(error):  # then the archive is not at fault
                raise ForetuneError(f"{unpacked}: {reason}") from None
            if not archives:
                raise ForetuneError(f"{root}: {error}; {explain_dataset_fetch(spec)}") from None
            last = archives[-1]
            set_aside = last.with_name(f"{last.name}.wrong")
            last.replace(set_aside)
            raise ForetuneError(
                f"{last}: this is not the file that torchvision expects ({error}); it was renamed "
                f"to {set_aside.name}: run it again, or {explain_dataset_fetch(spec)}"
            ) from None
        os.replace(unpacked, root)
    shutil.rmtree(downloads)


@contextmanager
def resume_downloads(folder: Path, spec: SourceSpec) -> Iterator[list[Path]]:
    """Make torchvision's downloads go to `folder` and resume; yield the list of files so far.

    torchvision has no public hook for this: its datasets import the public `download_url` by name,
    each for itself, so only the private functions that it calls can be replaced for all of them.
    Raises ForetuneError if a version of torchvision does not have these functions.
    """
    import torchvision
    from torchvision.datasets import utils

    for name, arguments in REPLACED_FUNCTIONS.items():
        function = getattr(utils, name, None)
        if not function or list(inspect.signature(function).parameters)[:2] != arguments:
            kind, root = spec["torchvision"], spec["root"]
            raise ForetuneError(
                f"torchvision {torchvision.__version__} has no torchvision.datasets.utils.{name}"
                f"({', '.join(arguments)}), which foretune needs to resume downloads; install "
                f"torchvision 0.29, or call torchvision.datasets.{kind}({root!r}, download=True) "
                "for the training and the test split"
            )
    originals = {name: getattr(utils, name) for name in REPLACED_FUNCTIONS}
    archives: list[Path] = []

    def retrieve(url: str, filename, chunk_size: int = 0) -> None:
        path = folder / Path(filename).name
        if not path.exists():
            try:
                download_file(url, path)
            except OSError as error:
                raise ForetuneError(
                    f"{url}: cannot be fetched ({error}); run it again to resume where it stopped, "
                    f"or {explain_dataset_fetch(spec)}"
                ) from None
        archives.append(path)
        link_or_copy(path, Path(filename))

    # The original asks the network even for a file that is in `folder` already.
    replacements = {"_get_redirect_url": lambda url, max_hops: url, "_urlretrieve": retrieve}
    try:
        vars(utils).update(replacements)
        yield archives
    finally:
        vars(utils).update(originals)
