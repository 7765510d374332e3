"""Accuracies in the columns of CLIP_benchmark's tables."""

import csv
import json

import pandas as pd

from foretune.analysis.clip_benchmark import OWN_COLUMNS, tabulate_clip_benchmark
from foretune.analysis.table_files import write_tables

MODELS = {
    "clip_b32": {"architecture": "ViT-B-32", "pretrained": "openai"},
    "mini": {"folder": "resources/mini/clip"},
}
# A result of CLIP_benchmark's own; `clip_benchmark build` makes a row of its keys and metrics.
RESULT = json.loads("""{"dataset": "cifar10", "model": "ViT-B-32", "pretrained": "openai",
"task": "zeroshot_classification", "language": "en",
"metrics": {"acc1": 0.8983, "acc5": 0.9938, "mean_per_class_recall": 0.8978}}""")


def make_outcomes() -> pd.DataFrame:
    rows = [
        ("clip_b32", "zero_shot", None, None, "pets", "test", 0.5, 0.9, 0.4),
        ("clip_b32", "lora", 1.0, "birds", "pets", "test", 0.4, 0.8, 0.3),
        ("clip_b32", "lora", 0.5, "birds", "pets", "drawn", 0.3, None, 0.2),
        ("mini", "zero_shot", None, None, "pets", "test", 0.2, 0.5, 0.1),
        ("mini", "linear_probe", 1.0, "pets", "pets", "test", 0.7, 0.99, 0.6),
        ("mini", "text_probe_4shot", 1.0, "pets", "pets", "test", 0.6, 0.99, 0.6),
        ("mini", "text_probe_4shot", 1.0, "pets", "birds", "test", 0.5, 0.99, 0.6),
    ]
    columns = ["model", "method", "wise_ft", "trained_on", "evaluated_on", "split", "accuracy",
               "accuracy_top5", "mean_class_accuracy"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(n=10)


def test_a_reader_of_clip_benchmarks_tables_finds_its_columns(tmp_path):
    write_tables(tabulate_clip_benchmark(make_outcomes(), MODELS), tmp_path / "c.parquet", {})
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    theirs = RESULT["metrics"] | {name: RESULT[name] for name in RESULT if name != "metrics"}
    theirs["model_fullname"] = f"{theirs['model']} {theirs['pretrained']}"
    assert set(theirs) <= set(rows[0])
    assert {name: rows[0][name] for name in theirs} == theirs | {
        "dataset": "pets", "acc1": "0.5", "acc5": "0.9", "mean_per_class_recall": "0.4",
    }  # fmt: skip
    # As its notebook does: one column per model, one row per dataset, of one task.
    both = pd.concat([pd.read_csv(tmp_path / "c.csv"), pd.DataFrame([theirs])])
    both = both[both.task == "zeroshot_classification"]
    wide = both.pivot(index="dataset", columns="model_fullname", values="acc1")
    assert wide.loc["cifar10", "ViT-B-32 openai"] == 0.8983
    assert wide.loc["pets", "ViT-B-32 openai/lora/birds"] == 0.4
    assert wide.loc["pets/drawn", "ViT-B-32 openai/lora/birds/0.5"] == 0.3


def test_rows_of_probes_and_of_models_in_folders():
    table = tabulate_clip_benchmark(make_outcomes(), MODELS)
    rows = table[table.model == "resources/mini/clip"].to_dict("records")
    zero_shot, probe, own, other = rows
    # A probe that starts from captions predicts other tasks by captions.
    assert (own["task"], other["task"]) == ("linear_probe", "zeroshot_classification")
    assert own["lp_acc1"] == 0.6 and other["acc1"] == 0.5
    assert zero_shot["pretrained"] == "" and zero_shot["acc5"] == 0.5
    assert probe["pretrained"] == "linear_probe/pets" and probe["task"] == "linear_probe"
    assert probe["lp_acc1"] == 0.7 and pd.isna(probe["acc1"]) and pd.isna(zero_shot["lp_acc1"])
    assert list(table)[-4:] == OWN_COLUMNS


def test_a_study_without_outcomes_has_a_table_without_rows():
    assert tabulate_clip_benchmark(make_outcomes()[:0], MODELS).empty
