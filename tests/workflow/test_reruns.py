"""What a change makes Snakemake run again: a row each, from the list of jobs that it prints.

The study is the default one, complete but for its contents: Snakemake touched every output, which
records the inputs, params and code that a run would have recorded.
"""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml

import public_files
from checkout import ROOT
from smoke import ENV, jobs, run

# Snakemake waits a tenth of a second for each job that it touches.
TOUCH = (
    "from snakemake.executors.touch import Executor; Executor.SLEEPING_TIME = 0;"
    "from snakemake.cli import main; main()"
)
STUDY = yaml.safe_load((ROOT / "config.yaml").read_text())
MORE = {"parquet": "resources/mini/digits.parquet"}
# Models, datasets, shifted tests; methods are full on all models, and five on clip_mini.
M, D, S = 4, 12, 3
MANIFEST = '{"splits": {"train": {"rows": 90}, "test": {"rows": 10}}, "classes": ["a", "b"]}'
SUMMARY = {"analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1}
EVALUATION = {
    "evaluate_zero_shot": M, "evaluate_model": M + 3, "evaluate_adapter": 1, "evaluate_probe": 1
}  # fmt: skip
NEW_DATASET = {
    "prepare_dataset": 1, "embed_images": M, "embed_captions": M, "measure_task": M,
    "finetune_model": M + 3, "fit_cached": 2,
}  # fmt: skip
OF_SHIFTED = {"prepare_shifted_test": 1, "embed_shifted_test": M}


def complete(checkout):
    """Make the study in config.yaml complete, without its contents."""
    printed = run(checkout, "-n", "--study", "config.yaml")
    for names in re.findall(r"^    output: (.*)$", printed, re.M):
        for name in names.split(", "):
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Jobs ask for memory and time by what the manifest says.
            path.write_text(MANIFEST if path.name == "dataset.json" else "")
    subprocess.run(
        [sys.executable, "-c", TOUCH, "--touch", "--forceall", "-q", "--profile", "profiles/local"],
        cwd=checkout, env=ENV, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """A checkout in which the default study is complete."""
    from checkout import copy_checkout

    folder = copy_checkout(tmp_path_factory.mktemp("default"))
    complete(folder)
    return folder


@contextmanager
def edited(checkout, changes):
    """Files as the changes have them, name -> text, bytes, or None for one that is deleted."""
    before = {}
    for name, content in changes.items():
        path = checkout / name
        before[path] = (path.read_bytes(), path.stat()) if path.exists() else None
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    yield
    for path, kept in before.items():
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept[0])
            os.utime(path, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))


def study(**sections):
    """config.yaml with other sections; comments are lost on the way, which is no change."""
    return {"config.yaml": yaml.safe_dump(STUDY | sections, sort_keys=False)}


def method(name, **keys):
    return study(methods=STUDY["methods"] | {name: STUDY["methods"][name] | keys})


def datasets(**entries):
    return study(datasets=STUDY["datasets"] | entries)


def appended(*names, text="\n# changed\n"):
    return {name: (ROOT / name).read_bytes() + text.encode() for name in names}


def library(name, text="\nCHANGED = True\n"):
    return appended(f"workflow_scripts/foretune/{name}", text=text)


def touched(*names):
    return appended(*names, text="")


def deleted(*names):
    return {f"results/{name}": None for name in names}


def without(section, name):
    return study(**{section: {k: v for k, v in STUDY[section].items() if k != name}})


# What the default study has of a method: without it, the method is one that is added.
OF_LORA = [
    *(f"trials/clip_mini/lora/{dataset}/0/{file}" for dataset in STUDY["datasets"]
      for file in ("best.json", "epochs.parquet", "trained_weights.safetensors")),
    *(f"evaluations/clip_mini/lora{kind}.parquet"
      for kind in ("", "_classes", "_confusions", "_drift")),
]  # fmt: skip

CHANGES = {
    "nothing": ({}, {}),
    "a dataset added": (datasets(more=MORE), NEW_DATASET | EVALUATION | SUMMARY),
    # Of the evaluations nothing is left to predict: their tables lose rows.
    "a dataset removed": (without("datasets", "stamps"), EVALUATION | SUMMARY),
    "datasets reordered": (study(datasets=dict(reversed(STUDY["datasets"].items()))), {}),
    "a shifted test added": (
        datasets(digits=MORE | {"shifted": {"mnist": {"parquet": "resources/mini/mnist.parquet"}}}),
        OF_SHIFTED | EVALUATION | SUMMARY,
    ),
    "a model added": (
        study(models=STUDY["models"] | {"more": {"folder": "resources/mini/clip"}}),
        {"embed_images": D, "embed_shifted_test": S, "embed_captions": D, "measure_task": D,
         "finetune_model": D, "evaluate_zero_shot": 1, "evaluate_model": 1} | SUMMARY,
    ),
    "a model removed": (
        without("models", "coca_mini"), SUMMARY
    ),
    "a method added": (
        deleted(*OF_LORA), {"finetune_model": D, "evaluate_model": 1} | SUMMARY
    ),
    "a method on one more model": (
        method("bitfit", models=["clip_mini", "coca_mini"]),
        {"finetune_model": D, "evaluate_model": 1} | SUMMARY,
    ),
    "a method removed": (without("methods", "lora"), SUMMARY),
    "a grid point added": (
        method("full", learning_rate=[5.0e-4, 1.0e-4]),
        {"finetune_model": M * D, "evaluate_model": M} | SUMMARY,
    ),
    "a grid point of a probe added": (
        method("linear_probe", learning_rate=[1.0, 0.1, 0.01, 0.001]),
        {"fit_cached": D, "evaluate_probe": 1} | SUMMARY,
    ),
    # A probe has no captions; EMMS, a measure, takes them from other models too.
    "a caption template changed": (
        datasets(stamps=STUDY["datasets"]["stamps"] | {"caption": "the {} {y}"}),
        {"embed_captions": M, "measure_task": M, "finetune_model": M + 3, "fit_cached": 1}
        | {k: v for k, v in EVALUATION.items() if k != "evaluate_probe"} | SUMMARY,
    ),
    "a measure switched on": (
        study(measures=STUDY["measures"] | {"also": ["entropy_total"]}),
        {"measure_task": M * D} | SUMMARY,
    ),
    "a measure written": (library("measures/compute.py"), {"measure_task": M * D} | SUMMARY),
    "the probe's module edited": (
        library("training/linear_probe.py"),
        {"fit_cached": 2 * D, "evaluate_adapter": 1, "evaluate_probe": 1} | SUMMARY,
    ),
    "the training loop edited": (
        library("training/finetune.py"), {"finetune_model": (M + 3) * D, "evaluate_model": M + 3} | SUMMARY
    ),
    "the evaluation edited": (library("evaluation/finetuned.py"), {"evaluate_model": M + 3} | SUMMARY),
    "the statistics edited": (library("analysis/regression.py"), SUMMARY),
    "the report's charts edited": (
        library("report/charts.py"), {"draw_figures": 1, "write_report": 1, "all": 1}
    ),
    "the figures edited": (library("report/paper_figures.py"), {"draw_figures": 1, "all": 1}),
    "the report's template edited": (appended("workflow_scripts/foretune/report/page/report.html.j2"), {"write_report": 1, "all": 1}),
    "a config key of the report changed": (study(title="a {title}"), {"write_report": 1, "all": 1}),
    "a licence added": (
        datasets(stamps=STUDY["datasets"]["stamps"] | {"licence": "CC0"}),
        {"write_report": 1, "all": 1},
    ),
    "trained weights deleted": (
        deleted("trials/clip_mini/lora/stamps/0/trained_weights.safetensors"),
        {"finetune_model": 1, "evaluate_model": 1} | SUMMARY,
    ),
    "a probe's embeddings deleted": (
        deleted("embeddings/clip_mini/flags/shifted/artists/test.parquet"),
        {"embed_shifted_test": 1, "evaluate_zero_shot": 1, "evaluate_adapter": 1,
         "evaluate_probe": 1} | SUMMARY,
    ),
    "a measure's file deleted": (
        deleted("measures/clip_mini/stamps.json"), {"measure_task": 1} | SUMMARY
    ),
    "a table deleted": (deleted("analysis/confusions.csv"), SUMMARY),
    "a figure deleted": (deleted("figures/methods.svg"), {"draw_figures": 1, "all": 1}),
    "the report deleted": (deleted("report.html"), {"write_report": 1, "all": 1}),
    "the provenance deleted": (deleted("provenance.json"), {"write_report": 1, "all": 1}),
    "files touched": (
        touched("config.yaml", "resources/mini/mnist.parquet", "workflow_scripts/finetune.py",
                "workflow_scripts/foretune/training/finetune.py", "resources/mini/clip/merges.txt.gz"), {},
    ),
    "a comment in config.yaml": (appended("config.yaml"), {}),
    "comments in the library": (
        library("training/finetune.py", "\n# changed\n") | library("data/prepare.py", "\n# changed\n"),
        {},
    ),
    "other weights": (
        appended("resources/mini/coca/open_clip_model.safetensors"),
        {"embed_images": D, "embed_shifted_test": S, "embed_captions": D, "measure_task": D,
         "finetune_model": D, "evaluate_zero_shot": 1, "evaluate_model": 1} | SUMMARY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reruns_what_it_must(default, change):
    changes, expected = CHANGES[change]
    with edited(default, changes):
        printed = run(default, "-n", "--study", "config.yaml")
    assert jobs(printed) == expected, printed[-3000:]


def test_every_output_is_asked_for(default):
    """So that one that is lost, with all that was made of it at hand, is noticed."""
    printed = run(default, "-n", "--study", "config.yaml", "--forceall")
    made = {name for names in re.findall(r"^    output: (.*)$", printed, re.M)
            for name in names.split(", ")}  # fmt: skip
    asked = re.search(r"^rule all:\n    input: (.*)$", printed, re.M)[1].split(", ")
    assert made <= set(asked)


def test_a_changed_image_or_tar_of_ones_own_is_noticed(checkout):
    public_files.clip_benchmark(checkout / "tars", ["crow", "jay"], {"train": 20, "test": 4})
    for number in range(20):
        path = checkout / f"images/{'crow' if number % 2 else 'jay'}/{number}.png"
        public_files.put(path, public_files.encoded("PNG"))
    entries = {"mine": {"folder": "images"}, "packed": {"webdataset": "tars"}}
    smoke = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    (checkout / "own.yaml").write_text(yaml.safe_dump(smoke | {"datasets": entries}))
    wanted = ["--study", "own.yaml", *(f"results/datasets/{name}/dataset.json" for name in entries)]
    assert jobs(run(checkout, *wanted)) == {"prepare_dataset": 2}
    assert jobs(run(checkout, "-n", *wanted)) == {}
    public_files.put(checkout / "images/jay/more.png", public_files.encoded("PNG"))
    public_files.clip_benchmark(checkout / "tars", ["crow", "jay"], {"train": 24, "test": 4})
    assert jobs(run(checkout, "-n", *wanted)) == {"prepare_dataset": 2}
