"""Record what a report was made from: versions, config, digests of data and weights."""

import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.files import write_json
from foretune.data.prepared import get_dataset_title
from foretune.data.sources.revisions import list_fetched_revisions

PACKAGES = ("torch", "torchvision", "open_clip_torch", "snakemake", "pyarrow", "numpy", "scipy",
            "altair")  # fmt: skip


def get_git_commit() -> str:
    """Return the checkout's commit, with "+" if files differ from it, or "unknown" without git."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.check_output(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, text=True,
            stderr=subprocess.DEVNULL,
        ).strip()  # fmt: skip
        changed = subprocess.check_output(["git", "status", "--porcelain"], cwd=folder, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed.strip() else "")


def list_revisions(config: dict, measured: list[dict]) -> dict[str, str]:
    """Return the commits of what came from Hugging Face's hub, by the config's name."""
    revisions = {m["model"]: m["revision"] for m in measured if m.get("revision")}
    for name, entry in config.get("datasets", {}).items():
        for title, source in {name: entry, **entry.get("shifted", {})}.items():
            if commits := list_fetched_revisions(Path(source["root"])) if "root" in source else []:
                revisions[name if title == name else f"{name}/{title}"] = ", ".join(commits)
    return revisions


def write_provenance(
    config: dict, datasets: list[Path], measures: list[Path], output: Path
) -> None:
    """Write the provenance of a study's report as JSON.

    Args:
        config: The study's config.
        datasets: Manifests of the datasets and of their shifted tests.
        measures: JSON files with the measures, which name the weights of their model.
        output: File to write.

    Raises:
        ForetuneError: The measures of a model were computed with different weights.
    """
    manifests = [json.loads(Path(path).read_text()) for path in datasets]
    measured = [json.loads(Path(path).read_text()) for path in measures]
    weights = {(m["model"], m["weights"]) for m in measured}
    if len(weights) > len({model for model, _ in weights}):
        raise ForetuneError(
            "the measures of a model were computed with different weights; "
            "delete results/ and run the study again"
        )
    write_json(
        {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "git_commit": get_git_commit(),
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
            "config": config,
            "datasets": {get_dataset_title(m): m["digest"] for m in manifests},
            "models": dict(weights),
            "revisions": list_revisions(config, measured),
        },
        output,
    )
