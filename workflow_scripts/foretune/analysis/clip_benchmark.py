"""Accuracies in the columns of CLIP_benchmark's tables, to set them beside other people's.

The columns are those that `clip_benchmark build` of github.com/LAION-AI/CLIP_benchmark writes for
the tasks zeroshot_classification and linear_probe. Those of foretune follow them.
"""

import pandas as pd

from foretune.core.config import HEAD_METHODS
from foretune.core.entries import ModelSpec
from foretune.core.variants import get_base_method

METRICS = {"accuracy": "acc1", "accuracy_top5": "acc5",
           "mean_class_accuracy": "mean_per_class_recall"}  # fmt: skip
CLIP_BENCHMARK_COLUMNS = [
    "dataset", "model", "pretrained", "model_fullname", "task", "language", *METRICS.values(),
    *(f"lp_{name}" for name in METRICS.values()),
]  # fmt: skip
OWN_COLUMNS = ["method", "trained_on", "wise_ft", "n"]


def tabulate_clip_benchmark(outcomes: pd.DataFrame, models: dict[str, ModelSpec]) -> pd.DataFrame:
    """Return a row per outcome, with the columns of CLIP_benchmark and then foretune's own.

    `model` and `pretrained` are what open_clip would be told; for a folder or a hub's model,
    `model` is that and `pretrained` is empty. A fine-tuned model's `pretrained` also names its
    method, its dataset and, if below 1, its WiSE-FT coefficient, separated by slashes. `dataset`
    is the name in the study, and of a shifted test also its own. Metrics of a layer for the
    dataset's classes have the prefix lp_. `language` is "en", the value that CLIP_benchmark takes
    if it is not told.

    outcomes: see `study_tables.join_outcomes`; models: the config's entries by name.
    """
    by_layer = outcomes.method.map(get_base_method).isin((*HEAD_METHODS, "lp_ft"))
    linear = by_layer & (outcomes.trained_on == outcomes.evaluated_on)
    names = {name: spec.get("architecture") or spec.get("hub") or spec.get("folder", name)
             for name, spec in models.items()}  # fmt: skip
    pretrained = {name: spec.get("pretrained", "") for name, spec in models.items()}
    mixed = outcomes.wise_ft < 1
    trained_on = outcomes.trained_on.fillna("").astype(str)  # no texts if nothing was trained
    tuned = "/" + outcomes.method + "/" + trained_on
    tuned += ("/" + outcomes.wise_ft.astype(str)).where(mixed, "")
    tuned = tuned.where(outcomes.trained_on.notna(), "")
    table = outcomes[OWN_COLUMNS].assign(
        dataset=outcomes.evaluated_on + ("/" + outcomes.split).where(outcomes.split != "test", ""),
        model=outcomes.model.map(lambda name: names.get(name, name)),
        pretrained=outcomes.model.map(lambda name: pretrained.get(name, "")) + tuned,
        task=linear.map({True: "linear_probe", False: "zeroshot_classification"}),
        language="en",
    )  # fmt: skip
    table["pretrained"] = table.pretrained.str.removeprefix("/")
    table["model_fullname"] = table.model + " " + table.pretrained
    for name, metric in METRICS.items():
        table[metric] = outcomes[name].where(~linear)
        table[f"lp_{metric}"] = outcomes[name].where(linear)
    return table[[*CLIP_BENCHMARK_COLUMNS, *OWN_COLUMNS]]
