"""Bring a study's public datasets and weights to this machine, once, where there is a network.

What is fetched is listed first, with licence and size. A download that breaks off goes on where it
stopped when it is tried again, at once or by the next run. Jobs of the study fetch nothing.
"""

import http.client
import inspect
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from foretune.core.errors import ForetuneError
from foretune.core.locks import exclusive_lock
from foretune.data.sources.base import NOT_STATED
from foretune.data.sources.read import read_source
from foretune.data.sources.registry import explain_dataset_fetch, get_known_source
from foretune.data.sources.webdataset import CLASS_NAMES_FILE, TEMPLATES_FILE

HUB = ("webdataset", "huggingface")
ATTEMPTS = 5  # in a row, without a byte gained


@dataclass
class FetchItem:
    """One thing to fetch, whatever entries of the config use it.

    names: those entries; splits: that they want of a dataset; where: the place it goes to.
    """

    spec: dict
    names: list[str]
    splits: set[str]
    source: str
    where: str
    licence: str
    size: str


def list_items(config: dict, ask: bool) -> list[FetchItem]:
    """What a checked config needs from elsewhere; ask: whether the hub may be asked for sizes."""
    entries = []
    for name, entry in (config["datasets"] | config["forecast"]["datasets"]).items():
        entries.append((name, entry, {"train", "test"}))
        for shift, each in entry.get("shifted", {}).items():
            entries.append((f"{name}/{shift}", each, {"test"}))
    items: dict[str, FetchItem] = {}
    for name, entry, splits in entries:
        # One dataset under two names is fetched once; other splits of it are other files.
        key = f"{entry.get('root', name)} {entry.get('subset')} {entry.get('splits')}"
        item = items.setdefault(key, describe_dataset_item(entry))
        item.names.append(name)
        item.splits |= splits
    for name, spec in config["models"].items():
        if "folder" not in spec and not Path(spec.get("pretrained", "")).is_file():
            items[f"model {name}"] = describe_model_item(name, spec)
    for item in items.values():
        ask = ask and (item.size != "?" or ask_hub(item))
    return list(items.values())


def describe_dataset_item(entry: dict) -> FetchItem:
    kind = next(
        kind for kind in ("torchvision", *HUB, "table", "parquet", "folder") if kind in entry
    )
    facts, size, where = {}, "?", entry.get("root", entry[kind])
    source = f"{kind} {entry[kind]}"
    if kind == "torchvision":
        facts = get_known_source("torchvision", entry[kind])
        size = f"about {facts['size']}"
    elif kind in HUB and not is_local(entry):
        facts = get_known_source("hub", entry[kind])
    else:
        size, source = "", f"by hand: {entry['source']}" if "source" in entry else "yours"
    licence = entry.get("licence", facts.get("licence", NOT_STATED))
    return FetchItem(entry, [], set(), source, where, licence, size)


def is_local(entry: dict) -> bool:
    """Whether the config itself names the folder that a dataset lies in."""
    return entry.get("root") == next(entry[kind] for kind in (*HUB, "root") if kind in entry)


def describe_model_item(name: str, spec: dict) -> FetchItem:
    from foretune.encoders.imports import hub, open_clip

    repository = spec.get("hub", "").removeprefix("hf-hub:")
    source = repository
    if not repository:
        tag = open_clip.get_pretrained_cfg(spec["architecture"], spec["pretrained"])
        repository = tag.get("hf_hub", "").strip("/")
        source = f"{spec['architecture']} {spec['pretrained']}: {repository or tag.get('url', '?')}"
    licence = get_known_source("models", repository).get("licence", "?")
    return FetchItem(spec, [name], set(), source, hub.constants.HF_HUB_CACHE, licence, "?")


def get_hub_patterns(item: FetchItem) -> list[str] | None:
    """What of a hub's dataset is fetched; None is all of it."""
    if "webdataset" not in item.spec:
        return None
    named = item.spec.get("splits", {})
    where = [named.get(split, split) for split in sorted(item.splits)]
    return [
        CLASS_NAMES_FILE,
        TEMPLATES_FILE,
        *(each if "*" in each else f"{each}/*" for each in where),
    ]


def ask_hub(item: FetchItem) -> bool:
    """Fill in the size, and a licence that is not known; whether it is worth asking again."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import HfHubHTTPError, HFValidationError, filter_repo_objects

    try:
        if item.splits:
            name = next(item.spec[kind] for kind in HUB if kind in item.spec)
            files = HfApi().list_repo_tree(name, repo_type="dataset", recursive=True)
            wanted = filter_repo_objects(
                (file for file in files if isinstance(file, RepoFile)),
                allow_patterns=get_hub_patterns(item), key=lambda file: file.path,
            )  # fmt: skip
            total = sum(file.size for file in wanted)
            card = HfApi().dataset_info(name).card_data if item.licence == NOT_STATED else None
        else:
            name = item.source.split(": ")[-1]
            facts = HfApi().model_info(name, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in facts.siblings}
            # The one file of weights that open_clip takes, and the small ones beside it.
            weights = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            total = next((sizes[each] for each in weights if each in sizes), sum(sizes.values()))
            card = facts.card_data if item.licence == "?" else None
    except (HfHubHTTPError, HFValidationError):
        return True  # no such repository, or terms that are not accepted: the fetch will tell
    except Exception:  # no network, after half a minute of trying
        return False
    item.size = f"{total / 1e6:.0f} MB" if total < 1e9 else f"{total / 1e9:.1f} GB"
    item.licence = str(getattr(card, "license", None) or item.licence)
    return True


def format_items(items: list[FetchItem]) -> str:
    """The items as lines of text: licence, size, source, place."""
    rows = [("what", "licence", "size", "from", "goes to")]
    rows += [(", ".join(i.names), i.licence, i.size, i.source, i.where) for i in items]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    )


def fetch_items(items: list[FetchItem], log=print) -> None:
    """Fetch what is missing and look at what is there.

    Raises ForetuneError with a line for each item that could not be had, after all were tried.
    """
    failed = []
    for item in items:
        what = ", ".join(item.names)
        try:
            log(f"{what}: {fetch_item(item, log)}")
        except ForetuneError as error:
            log(f"{what}: FAILED")
            failed.append(f"{what}: {error}")
    if failed:
        raise ForetuneError("\n".join([f"{len(failed)} of {len(items)} are missing:", *failed]))


def fetch_item(item: FetchItem, log) -> str:
    """Fetch one item, then read it as a job would; what was found."""
    spec = item.spec
    if not item.splits:
        from foretune.encoders.loading import digest_weights, load_model

        return f"weights {digest_weights(load_model(spec)[0])[:12]}"
    if "torchvision" in spec:
        fetch_torchvision(spec, log)
    elif any(kind in spec for kind in HUB) and not is_local(spec):
        fetch_from_hub(item)
    wanted = ("train", "test") if "train" in item.splits else ("test",)
    found = read_source(spec, wanted)
    counts = ", ".join(f"{rows.n} {split}" for split, rows in found.rows.items())
    return f"{len(found.classes)} classes; {counts}"


def fetch_from_hub(item: FetchItem) -> None:
    from huggingface_hub import snapshot_download

    spec = item.spec
    name = next(spec[kind] for kind in HUB if kind in spec)
    try:
        # It goes on with a file that broke off, and looks only whether a complete one has changed.
        snapshot_download(
            name, repo_type="dataset", local_dir=item.where, allow_patterns=get_hub_patterns(item)
        )
    except Exception as error:  # the hub's, httpx's and the system's
        reason = str(error).strip().splitlines()[0]
        raise ForetuneError(
            f"{name} cannot be fetched ({type(error).__name__}: {reason}); run it again to go on "
            f"where it stopped; {explain_dataset_fetch(spec)}; terms to be accepted: on the dataset's page, "
            "then `hf auth login`"
        ) from None


def fetch_torchvision(spec: dict, log) -> None:
    """Let torchvision download and unpack beside `root`, and give it that name when it is whole.

    torchvision takes a folder for complete that it unpacked by half. Archives come first, into
    `root`.downloads, where one that was put there by hand is taken, too.
    """
    from torchvision import datasets

    root, kind = Path(spec["root"]), getattr(datasets, spec["torchvision"])
    accepted = inspect.signature(kind).parameters
    if root.exists():
        return
    if spec["torchvision"] == "StanfordCars":
        raise ForetuneError(f"torchvision cannot download it; {explain_dataset_fetch(spec)}")
    splits = [{}]
    if "split" in accepted or "train" in accepted:
        splits = [{"split": s} if "split" in accepted else {"train": s == "train"}
                  for s in ("train", "test")]  # fmt: skip
    downloads, beside = root.with_name(f"{root.name}.downloads"), root.with_name(f".{root.name}")
    with exclusive_lock(downloads), resumed_downloads(downloads, spec, log) as last:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            for split in splits:
                kind(beside, download=True, **split)
        except ForetuneError:
            raise
        except Exception as error:  # a wrong checksum, an archive that does not unpack, a full disk
            if not last:
                raise ForetuneError(f"{root}: {error}; {explain_dataset_fetch(spec)}") from None
            wrong = last[-1].with_name(f"{last[-1].name}.wrong")
            last[-1].replace(wrong)
            raise ForetuneError(
                f"{last[-1]}: not the file that torchvision knows ({error}); it is {wrong.name} "
                f"now: run it again, or {explain_dataset_fetch(spec)}"
            ) from None
        os.replace(beside, root)
    shutil.rmtree(downloads)


@contextmanager
def resumed_downloads(folder: Path, spec: dict, log) -> Iterator[list[Path]]:
    """Let torchvision's downloads go to `folder` and on where they stopped; the files so far."""
    from torchvision.datasets import utils

    done: list[Path] = []

    def retrieve(url: str, filename, chunk_size: int = 0) -> None:
        path = folder / Path(filename).name
        if not path.exists():
            try:
                download(url, path)
            except OSError as error:
                raise ForetuneError(
                    f"{url}: cannot be fetched ({error}); run it again to go on where it stopped, "
                    f"or {explain_dataset_fetch(spec)}"
                ) from None
        done.append(path)
        os.link(path, filename)

    # The first of them asks the network even for what lies there already.
    names = ("_get_redirect_url", "_urlretrieve")
    kept = [getattr(utils, name) for name in names]
    utils._get_redirect_url, utils._urlretrieve = lambda url, max_hops: url, retrieve
    try:
        yield done
    finally:
        for name, function in zip(names, kept, strict=True):
            setattr(utils, name, function)


def download(url: str, path: Path) -> None:
    """Fetch a file over HTTP; what an earlier try left beside it, `.part`, is gone on with.

    Raises OSError where nothing more comes in ATTEMPTS tries.
    """
    part = path.with_name(f"{path.name}.part")
    part.touch()
    tries = 0
    with tqdm(desc=path.name, unit="B", unit_scale=True, mininterval=5) as bar:
        while True:
            before = part.stat().st_size
            try:
                if append_download(url, part, bar):
                    break
                error: Exception = OSError("the connection broke off")
            except urllib.error.HTTPError as refused:
                if refused.code < 500:
                    raise
                error = refused
            except (OSError, http.client.HTTPException) as broken:
                error = broken
            tries = 0 if part.stat().st_size > before else tries + 1
            if tries == ATTEMPTS:
                raise OSError(str(error)) from None
            time.sleep(0.1 * 2**tries)
    part.rename(path)


def append_download(url: str, part: Path, bar: tqdm) -> bool:
    """Ask for the rest of a file and add what comes; whether it is all there."""
    start = part.stat().st_size
    agent = {"User-Agent": "foretune", "Range": f"bytes={start}-"}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=agent), timeout=60)
    except urllib.error.HTTPError as error:
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if error.code == 416 and total == str(start) and start:
            return True  # the rest is nothing
        raise
    with response, open(part, "ab") as file:
        if response.status != 206:  # a server that does not know ranges sends all of it
            file.truncate(0)
            start = 0
        length = response.headers.get("Content-Length")
        bar.total, bar.n = length and start + int(length), start
        while chunk := response.read(1 << 20):
            file.write(chunk)
            bar.update(len(chunk))
    return length is None or part.stat().st_size == start + int(length)
