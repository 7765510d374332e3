"""Record what a report was made from: versions, config, digests of data and weights."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.files import read_json, write_json
from foretune.data.prepared import Manifest, get_dataset_title
from foretune.data.sources.revisions import list_fetched_revisions

CHECKOUT = Path(__file__).parents[3]
THIS_FILE = "workflow_scripts/foretune/report/provenance.py"
PACKAGES = ("torch", "torchvision", "open_clip_torch", "snakemake", "pyarrow", "numpy", "scipy",
            "altair")  # fmt: skip


def get_git_commit() -> str:
    """Return the checkout's commit, with "+" if files differ from it.

    It is "unknown" without git, and if the code was copied into another repository.
    """
    # GIT_DIR and the like would name another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}

    def ask_git(*words: str) -> str:
        return subprocess.check_output(
            ["git", *words], cwd=CHECKOUT, env=environment, text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        if not CHECKOUT.samefile(ask_git("rev-parse", "--show-toplevel")):
            return "unknown"
        ask_git("ls-files", "--error-unmatch", "--", THIS_FILE)
        commit = ask_git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if ask_git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def get_version(package: str) -> str:
    """Return the version of an installed package.

    Snakemake's is "not installed" with `--sdm conda`, whose jobs have an environment without it.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
    manifests = [read_json(path, Manifest) for path in datasets]
    measured = [read_json(path) for path in measures]
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
                **{name: get_version(name) for name in PACKAGES},
            },
            "config": config,
            "datasets": {get_dataset_title(m): m["digest"] for m in manifests},
            "models": dict(weights),
            "revisions": list_revisions(config, measured),
        },
        output,
    )
