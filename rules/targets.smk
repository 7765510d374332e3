"""Lists of the files that a study consists of, and what the rule `all` asks for."""

from foretune.analysis.tables import (
    FORECAST_TABLE_NAMES,
    PAIR_TABLE_NAMES,
    REPORT_TABLE_NAMES,
    TABLE_NAMES,
)


def list_manifests():
    """List the manifest of every test: of each dataset and each shifted test."""
    return expand("results/datasets/{test}/dataset.json", test=TESTS)


def list_notes(tests):
    """List what the preparations of datasets and shifted tests left out and noticed."""
    return expand("results/datasets/{test}/notes.json", test=tests)


def list_measures(datasets, models=MODELS):
    """List the measures of datasets by every model."""
    return expand("results/measures/{model}/{dataset}.json", model=models, dataset=datasets)


def list_rehearsals(datasets, models=MODELS):
    """List the rehearsals of datasets on the embeddings of every model."""
    return expand("results/rehearsals/{model}/{dataset}.json", model=models, dataset=datasets)


def list_forecast_tests():
    """List what needs no forecast: the tests of datasets under `forecast`, on their embeddings."""
    runs = [(model, "zero_shot") for model in FORECAST_MODELS]
    runs += [run for run in RUNS if run[1] in FITTED_METHODS]
    return [
        f"results/forecast/tests/{model}/{method}/{dataset}.parquet"
        for model, method in runs
        for dataset in STUDY["forecast"]["datasets"]
    ]


def list_pilots(datasets):
    """List the pilots of datasets, if the config asks for them."""
    runs = RUNS if "pilot" in STUDY["forecast"] else []
    return [
        f"results/pilots/{model}/{method}/{dataset}.json"
        for model, method in runs
        # Few-shot training is as short as a pilot.
        if method in FINETUNED_METHODS and parse_variant(method).shots is None
        for dataset in datasets
    ]


def list_external_measures():
    """List the measures of embeddings that were computed elsewhere."""
    return expand("results/measures/{name}.json", name=STUDY["embeddings"])


def list_part_files(model, method, dataset, name):
    """List the file `name` of the jobs that train one run: one per part of the method's grid."""
    return [f"results/trials/{model}/{method}/{dataset}/{part}/{name}" for part in PARTS[method]]


def list_trial_files(name):
    """List the file `name` of every job that trains."""
    return [
        path
        for run in RUNS
        for dataset in DATASETS
        for path in list_part_files(*run, dataset, name)
    ]


def list_selections(model, method, datasets=DATASETS):
    """List the selected trial of each dataset: the best over the parts, or that of the only one."""
    if method in SPLIT_METHODS:
        return [f"results/selected/{model}/{method}/{dataset}.json" for dataset in datasets]
    return [path for d in datasets for path in list_part_files(model, method, d, "best.json")]


def list_all_selections():
    """List the selected trial of every model, method and dataset."""
    return [path for run in RUNS for path in list_selections(*run)]


def list_evaluations(kind=""):
    """List the tables of the evaluations: accuracies, or those of kind _classes or _confusions."""
    runs = [*((model, "zero_shot") for model in MODELS), *RUNS] if TRAINS else []
    return [f"results/evaluations/{model}/{method}{kind}.parquet" for model, method in runs]


def list_drifts():
    """List the tables of how far the fine-tuned models moved their task's embeddings."""
    return [
        f"results/evaluations/{model}/{method}_drift.parquet"
        for model, method in RUNS
        if method in FINETUNED_METHODS
    ]


def list_forecast_tables():
    """List the tables of the forecasts; there are none without datasets to forecast."""
    names = FORECAST_TABLE_NAMES if STUDY["forecast"]["datasets"] else []
    return expand("results/forecast/{name}.parquet", name=names)


def make_csv_output(name):
    """Return the CSV file of a table, in Snakemake's report if rules/captions/ describes it."""
    path, caption = f"results/analysis/{name}.csv", f"captions/{name}.rst"
    if not Path(workflow.basedir, "rules", caption).is_file():
        return path
    return report(path, caption=caption, category="Tables", labels={"table": name})


def list_finished_trials(model, method):
    """List the selected trials of a model and method that are on disk."""
    paths = map(Path, list_selections(model, method))
    return [local(str(path.absolute())) for path in paths if path.is_file()]


def list_all_finished_trials():
    """List the selected trials on disk of every model and method."""
    return [path for run in RUNS for path in list_finished_trials(*run)] if TRAINS else []


def list_known_evaluations(wildcards):
    """List the evaluations of whatever is trained, and of what trains on embeddings."""
    if not TRAINS:
        return []
    runs = [(model, "zero_shot") for model in FORECAST_MODELS]
    runs += [run for run in RUNS if run[1] in FITTED_METHODS]
    tuned = [run for run in RUNS if run[1] in FINETUNED_METHODS and list_finished_trials(*run)]
    return [f"results/evaluations/{model}/{method}.parquet" for model, method in runs] + [
        f"results/forecast/finished/{model}/{method}.parquet" for model, method in tuned
    ]


def list_pooled_outputs():
    """List the pooled outputs that the methods read: of no model unless a method asks for them."""
    tests = {"train": DATASETS, "val": DATASETS, "test": TESTS}
    return [
        path
        for model in MODELS
        # Variants of a method read the same files.
        for method in [name for name in POOLED_PROBES if (model, name) in RUNS][:1]
        for split, names in tests.items()
        for path in list_features(model, method, names, split)
    ]


def final_output():
    """List the report and every intermediate that is kept, so that a lost one is made again."""
    splits = ["train", "val"]
    return [
        "results/report.html",
        "results/provenance.json",
        "results/analysis/statistics.json",
        "results/analysis/paper_tables.md",
        *expand("results/analysis/{name}.{kind}", name=TABLE_NAMES, kind=["parquet", "csv"]),
        *list_measures(STUDY["forecast"]["datasets"], FORECAST_MODELS),
        *list_rehearsals(STUDY["forecast"]["datasets"], FORECAST_MODELS),
        *list_forecast_tables(),
        *(path.replace(".parquet", ".csv") for path in list_forecast_tables()),
        *(["results/forecast/forecast.html"] if STUDY["forecast"]["datasets"] else []),
        *expand(
            "results/figures/{figure}.svg",
            figure=["models", "methods", "trade_off"],
        ),
        *expand(
            "results/figures/{figure}_{model}.svg", figure=["accuracy", "training"], model=MODELS
        ),
        *list_manifests(),
        *list_notes(TESTS),
        *expand("results/datasets/{dataset}/{split}.parquet", dataset=DATASETS, split=splits),
        *expand("results/datasets/{test}/test.parquet", test=TESTS),
        *list_measures(DATASETS),
        *list_rehearsals(DATASETS),
        *(path.replace(".json", "_images.parquet") for path in list_rehearsals(DATASETS)),
        *list_external_measures(),
        *list_pilots(DATASET_ENTRIES),
        *list_trial_files("epochs.parquet"),
        *list_trial_files("best.json"),
        *list_trial_files("trained_weights.safetensors"),
        *list_all_selections(),
        *list_evaluations(),
        *list_evaluations("_classes"),
        *list_evaluations("_confusions"),
        *list_drifts(),
        *expand(
            "results/embeddings/{model}/{dataset}/{file}.parquet",
            model=MODELS,
            dataset=DATASETS,
            file=[*splits, "train_hidden", "own_text", "text"],
        ),
        *expand("results/embeddings/{model}/{test}/test.parquet", model=MODELS, test=TESTS),
        *list_pooled_outputs(),
    ]
