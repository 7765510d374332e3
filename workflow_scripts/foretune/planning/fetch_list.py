"""The public datasets and weights that a study needs, with licence, size, source and place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foretune.core.entries import ModelSpec, SourceSpec
from foretune.data.sources.base import NOT_STATED
from foretune.data.sources.registry import get_known_source
from foretune.data.sources.webdataset import CLASS_NAMES_FILE, TEMPLATES_FILE

HubKind = Literal["webdataset", "huggingface"]
HUB_KINDS: tuple[HubKind, ...] = ("webdataset", "huggingface")
DATASET_KINDS: tuple[HubKind | Literal["torchvision", "table", "parquet", "folder"], ...] = (
    "torchvision", *HUB_KINDS, "table", "parquet", "folder"
)  # fmt: skip
UNKNOWN_FACT = "?"  # a size or licence that the hub may know


@dataclass(kw_only=True)
class FetchItem:
    """One thing to fetch. `names` are the config's entries that use it."""

    names: list[str] = field(default_factory=list)
    source: str
    where: str  # the folder it goes to
    licence: str
    size: str = UNKNOWN_FACT


@dataclass(kw_only=True)
class DatasetItem(FetchItem):
    """A dataset, and the splits of it that the entries need."""

    spec: SourceSpec
    splits: set[str] = field(default_factory=set)

    @property
    def hub_name(self) -> str | None:
        """The dataset's name on the hub; None if it is not fetched from there."""
        if is_local(self.spec):
            return None
        return next((self.spec[kind] for kind in HUB_KINDS if kind in self.spec), None)


@dataclass(kw_only=True)
class ModelItem(FetchItem):
    """The weights of a model, and the hub's repository that has them."""

    spec: ModelSpec
    repository: str


def list_items(config: dict, ask: bool) -> list[DatasetItem | ModelItem]:
    """Return what a checked config needs from elsewhere, its own files included.

    `ask` says whether the hub may be asked for sizes and licences.
    """
    entries = []
    for name, entry in (config["datasets"] | config["forecast"]["datasets"]).items():
        entries.append((name, entry, {"train", "test"}))
        for shift, shifted_entry in entry.get("shifted", {}).items():
            entries.append((f"{name}/{shift}", shifted_entry, {"test"}))
    datasets: dict[str, DatasetItem] = {}
    for name, entry, splits in entries:
        # A dataset under two names is fetched once; other splits of it are other files.
        key = f"{entry.get('root', name)} {entry.get('subset')} {entry.get('splits')}"
        dataset = datasets.setdefault(key, list_dataset_item(entry))
        dataset.names.append(name)
        dataset.splits |= splits
    models = [
        describe_model(name, spec)
        for name, spec in config["models"].items()
        if "folder" not in spec and not Path(spec.get("pretrained", "")).is_file()
    ]
    items: list[DatasetItem | ModelItem] = [*datasets.values(), *models]
    for item in items:
        if ask and item.size == UNKNOWN_FACT:
            ask = ask_hub(item)
    return items


def list_dataset_item(entry: SourceSpec) -> DatasetItem:
    """Return the item of one dataset's entry, from what foretune knows of public datasets."""
    kind = next(kind for kind in DATASET_KINDS if kind in entry)
    facts, size, source = {}, UNKNOWN_FACT, f"{kind} {entry[kind]}"
    if kind == "torchvision":
        facts = get_known_source("torchvision", entry[kind])
        size = f"about {facts['size']}"
    elif kind in HUB_KINDS and not is_local(entry):
        facts = get_known_source("hub", entry[kind])
    else:
        size, source = "", f"by hand: {entry['source']}" if "source" in entry else "yours"
    licence = entry.get("licence", facts.get("licence", NOT_STATED))
    where = entry.get("root", entry[kind])
    return DatasetItem(spec=entry, source=source, where=where, licence=licence, size=size)


def is_local(entry: SourceSpec) -> bool:
    """Return whether the config names a dataset of a hub's kind by its folder.

    `check_config` sets `root` to that folder.
    """
    names = [entry[kind] for kind in HUB_KINDS if kind in entry]
    return not names or entry.get("root") == names[0]


def describe_model(name: str, spec: ModelSpec) -> ModelItem:
    """Return the item of a model's weights, from what open_clip knows of its tag."""
    from foretune.encoders.imports import hub, open_clip

    repository = source = spec.get("hub", "").removeprefix("hf-hub:")
    if not repository:
        tag = open_clip.get_pretrained_cfg(spec["architecture"], spec["pretrained"])
        hub_name = tag.get("hf_hub", "").strip("/")
        repository = hub_name or tag.get("url", UNKNOWN_FACT)
        source = f"{spec['architecture']} {spec['pretrained']}: {repository}"
    licence = get_known_source("models", repository).get("licence", UNKNOWN_FACT)
    return ModelItem(
        spec=spec, names=[name], source=source, where=hub.constants.HF_HUB_CACHE,
        licence=licence, repository=repository,
    )  # fmt: skip


def get_hub_patterns(item: DatasetItem) -> list[str] | None:
    """Return patterns of the files that are fetched from the hub; None stands for all files."""
    if "webdataset" not in item.spec:
        return None
    folders = item.spec.get("splits", {})
    paths = [folders.get(split, split) for split in sorted(item.splits)]
    return [
        CLASS_NAMES_FILE,
        TEMPLATES_FILE,
        *(path if "*" in path else f"{path}/*" for path in paths),
    ]


def ask_hub(item: DatasetItem | ModelItem) -> bool:
    """Ask the hub for the size of an item, and for its licence if it is not known.

    Returns False if the hub does not answer, so that it need not be asked again.
    """
    from huggingface_hub.utils import HfHubHTTPError, HFValidationError

    try:
        if isinstance(item, DatasetItem):
            total, licence = ask_dataset(item)
        else:
            total, licence = ask_model(item)
    except (HfHubHTTPError, HFValidationError):
        return True  # no such repository, or terms not yet accepted: the fetch reports it
    except Exception:  # no network, after half a minute of trying
        return False
    item.size = f"{total / 1e6:.0f} MB" if total < 1e9 else f"{total / 1e9:.1f} GB"
    item.licence = str(licence or item.licence)
    return True


def ask_dataset(item: DatasetItem) -> tuple[int, str | None]:
    """Return the bytes of the files that are fetched, and the licence if it is not known."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    name = item.hub_name or ""
    files = HfApi().list_repo_tree(name, repo_type="dataset", recursive=True)
    wanted = filter_repo_objects(
        (file for file in files if isinstance(file, RepoFile)),
        allow_patterns=get_hub_patterns(item), key=lambda file: file.path,
    )  # fmt: skip
    total = sum(file.size for file in wanted)
    if item.licence != NOT_STATED:
        return total, None
    card = HfApi().dataset_info(name).card_data
    return total, getattr(card, "license", None)


def ask_model(item: ModelItem) -> tuple[int, str | None]:
    """Return the bytes of the weights, and the licence if it is not known."""
    from huggingface_hub import HfApi

    facts = HfApi().model_info(item.repository, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in facts.siblings or ()}
    # open_clip takes one file of weights; the others that it takes are small.
    weights = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    total = next((sizes[name] for name in weights if name in sizes), sum(sizes.values()))
    if item.licence != UNKNOWN_FACT:
        return total, None
    return total, getattr(facts.card_data, "license", None)


def format_items(items: list[DatasetItem | ModelItem]) -> str:
    """Return a table of the items as text, one line each."""
    rows = [("what", "licence", "size", "from", "goes to")]
    rows += [
        (", ".join(item.names), item.licence, item.size, item.source, item.where) for item in items
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    )
