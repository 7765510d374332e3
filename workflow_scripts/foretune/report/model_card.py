"""Write the model card of an exported model: what it is, how it was made, and what it can do."""

from importlib.metadata import version
from typing import Any

import pandas as pd
import yaml

from foretune.analysis.formatting import format_percent
from foretune.core.entries import ModelSpec, Selection
from foretune.core.grid import GRID_KEYS
from foretune.data.prepared import Manifest

TESTED = "Tests of other datasets than its own show what it forgot.\n"
USAGE = """\
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{folder}")
tokenizer = open_clip.get_tokenizer("local-dir:{folder}")
```

The captions of training were made from `{caption}`. After an upload to the hub, the name is
`hf-hub:owner/name` in place of `local-dir:{folder}`.
"""


def describe_base(spec: ModelSpec) -> str:
    """Return the name of a base model as its entry in the config gives it."""
    if "architecture" in spec:
        return f"{spec['architecture']}, {spec['pretrained']}"
    return spec.get("hub") or f"the folder {spec['folder']}"


def list_accuracies(outcomes: pd.DataFrame, run: Selection, coefficient: float) -> list[str]:
    """Return a table in Markdown with the accuracies of a model on every test, as lines.

    outcomes: rows of the evaluations (OUTCOME_SCHEMA) of the zero-shot model and of this method, of
    which there may be none of this model.
    """
    tuned = outcomes[
        (outcomes.trained_on == run["dataset"]) & (outcomes.method == run["method"])
        & (outcomes.wise_ft == coefficient)
    ]  # fmt: skip
    if tuned.empty:
        return []
    zero_shot = outcomes[outcomes.method == "zero_shot"].set_index(["evaluated_on", "split"])
    own = tuned.evaluated_on == run["dataset"]
    lines = ["| test | images | zero-shot | this model |", "|---|---|---|---|"]
    for row in pd.concat([tuned[own], tuned[~own]]).itertuples():
        shift = "" if row.split == "test" else f", shifted: {row.split}"
        before = zero_shot.accuracy[row.evaluated_on, row.split]
        lines.append(
            f"| {row.evaluated_on}{shift} | {row.n} | {format_percent(before)} | "
            f"{format_percent(row.accuracy)} |"
        )
    return lines


def write_model_card(
    spec: ModelSpec, run: Selection, manifest: Manifest, outcomes: pd.DataFrame | None,
    coefficient: float, study: str, folder: str,
) -> str:  # fmt: skip
    """Return the content of the README.md of an exported model.

    Args:
        run: the selected trial.
        outcomes: see `list_accuracies`; None if the model was not evaluated.
        study: the study's title.
        folder: name of the folder that holds the model.
    """
    facts: dict[str, Any] = {
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "license": "other",
        "tags": ["open_clip", "clip", "foretune"],
    }
    settings = ", ".join(f"{key} {value}" for key, value in run.items() if key in GRID_KEYS)
    share = "" if coefficient == 1 else f"; {coefficient:g} of the way to its weights (WiSE-FT)"
    n = manifest["splits"]["train"]["rows"]
    lines = [
        f"---\n{yaml.safe_dump(facts, sort_keys=False)}---",
        f"# {run['model']} fine-tuned on {run['dataset']}",
        f"- Base model: {describe_base(spec)}. Its licence holds for this model, too.",
        f"- Data: {run['dataset']}, {n} training images of {len(manifest['classes'])} classes. "
        f"Licence: {manifest['licence']}. Source: {manifest['source']}.",
        f"- Method: {run['method']} ({settings}), {run['epoch']} epochs, chosen by an accuracy of "
        f"{format_percent(run['val_accuracy'])} on validation images{share}.",
        f"- Made by foretune in the study “{study}”, with open_clip {version('open_clip_torch')} "
        f"and torch {version('torch')}.",
        "\n## Accuracy\n",
    ]
    tested = list_accuracies(outcomes, run, coefficient) if outcomes is not None else []
    lines += [TESTED, *tested] if tested else ["It was not tested."]
    lines += ["\n## Use\n", USAGE.format(folder=folder, caption=manifest["caption"])]
    return "\n".join(lines)
