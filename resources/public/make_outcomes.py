"""Make outcomes.csv, the accuracies of studies/public.yaml, from all those of accuracies.csv.

Run it in this folder. A model's zero-shot accuracy differs from one table to the other, because of
the captions. A gain therefore needs both accuracies from one table: the tables of eight tasks,
tuned x tested, for these eight, and the tables of twenty tasks for the other twelve.
"""

import pandas as pd

SOURCE = "fusion_bench"  # the other sources lack zero-shot accuracies, or the other tasks
MODELS = {"CLIP ViT-B/32": "clip_b32", "CLIP ViT-B/16": "clip_b16", "CLIP ViT-L/14": "clip_l14"}
EIGHT = {"zero-shot": "zero_shot", "full_vision": "full", "lora16_vision": "lora"}
TWENTY = {"zero-shot (20-task table)": "zero_shot", "full_vision (20-task table)": "full"}


def select_outcomes(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the study uses, with its names of models and methods."""
    rows = accuracies[accuracies.source.str.startswith(SOURCE)]
    eight = set(rows.tested_on[rows.method == "zero-shot"])
    chosen = [rows[rows.method.isin(EIGHT)]]
    chosen.append(rows[rows.method.isin(TWENTY) & ~rows.tested_on.isin(eight)])
    frame = pd.concat(chosen).replace({"model": MODELS, "method": EIGHT | TWENTY})
    frame = frame.rename(columns={"tested_on": "evaluated_on", "accuracy": "accuracy_percent"})
    return frame.sort_values(["model", "method", "trained_on"], kind="stable", na_position="first")


if __name__ == "__main__":
    outcomes = select_outcomes(pd.read_csv("accuracies.csv"))
    outcomes.to_csv("outcomes.csv", index=False)
