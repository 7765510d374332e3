"""Write the model card of an exported model: what it is, how it was made, and what it can do."""

from importlib.metadata import version
from typing import Any

import pandas as pd
import yaml

from foretune.analysis.formatting import format_number, format_percent
from foretune.core.entries import ModelSpec, Selection
from foretune.core.grid import GRID_KEYS
from foretune.data.prepared import Manifest
from foretune.evaluation.scores import OUTCOME_SCHEMA

TESTED = """\
Tests of other datasets than its own show what it forgot. In each column, the first number is that
of the zero-shot model. The expected calibration error has 15 bins, and the negative log-likelihood
is that of the true classes.
"""
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


def list_outcomes(outcomes: pd.DataFrame, run: Selection, coefficient: float) -> list[str]:
    """Return a table in Markdown with a model's accuracy and calibration on every test, as lines.

    A sentence follows about its temperature, if one was fitted.

    outcomes: rows of the evaluations (OUTCOME_SCHEMA) of the zero-shot model and of this method, of
    which there may be none of this model. Those of an older version may lack calibration.
    """
    outcomes = outcomes.reindex(columns=OUTCOME_SCHEMA.names)
    tuned = outcomes[
        (outcomes.trained_on == run["dataset"]) & (outcomes.method == run["method"])
        & (outcomes.wise_ft == coefficient)
    ]  # fmt: skip
    if tuned.empty:
        return []
    zero_shot = outcomes[outcomes.method == "zero_shot"].set_index(["evaluated_on", "split"])
    own = tuned.evaluated_on == run["dataset"]
    columns = {"accuracy": format_percent, "ece": format_percent, "nll": format_number}
    lines = ["| test | images | accuracy | calibration error | negative log-likelihood |",
             "|---|---|---|---|---|"]  # fmt: skip
    for row in pd.concat([tuned[own], tuned[~own]]).to_dict("records"):
        shift = "" if row["split"] == "test" else f", shifted: {row['split']}"
        before = zero_shot.loc[(row["evaluated_on"], row["split"])]
        cells = [f"{row['evaluated_on']}{shift}", str(row["n"])]
        cells += [f"{show(before[name])} → {show(row[name])}" for name, show in columns.items()]
        lines.append(f"| {' | '.join(cells)} |")
    own_test = tuned[own & (tuned.split == "test") & tuned.temperature.notna()]
    for row in own_test.to_dict("records"):
        lines.append(
            f"\nDivided by {format_number(row['temperature'])}, the temperature that fits its "
            "validation images best, its logits have a calibration error of "
            f"{format_percent(row['ece_scaled'])} and a negative log-likelihood of "
            f"{format_number(row['nll_scaled'])} on its own test."
        )
    return lines


def write_model_card(
    spec: ModelSpec, run: Selection, manifest: Manifest, outcomes: pd.DataFrame | None,
    coefficient: float, study: str, folder: str,
) -> str:  # fmt: skip
    """Return the content of the README.md of an exported model.

    Args:
        run: the selected trial.
        outcomes: see `list_outcomes`; None if the model was not evaluated.
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
        "\n## Accuracy and calibration\n",
    ]
    tested = list_outcomes(outcomes, run, coefficient) if outcomes is not None else []
    lines += [TESTED, *tested] if tested else ["It was not tested."]
    lines += ["\n## Use\n", USAGE.format(folder=folder, caption=manifest["caption"])]
    return "\n".join(lines)
