"""Check which jobs Snakemake would run again after a change, from the jobs that it lists.

The study is the default one. Its outputs are there but have no content: Snakemake touched them,
which records the same inputs, params and code as a run.
"""

import json
import os
import re
from contextlib import contextmanager

import pytest
import yaml

import public_files
from checkout import ROOT
from smoke import NO_SERVER, jobs, run, run_snakemake

pytestmark = pytest.mark.long

# Without Snakemake's pause of a tenth of a second per job that it touches.
TOUCH = (
    "from snakemake.executors.touch import Executor; Executor.SLEEPING_TIME = 0;"
    "from snakemake.cli import main; main()"
)
STUDY = yaml.safe_load((ROOT / "config.yaml").read_text())
MORE = {"parquet": "resources/mini/digits.parquet"}
# Numbers of models, datasets and shifted tests. One method, full, trains all models; the five
# others train clip_mini: three of them fine-tune it and two use cached embeddings.
M, D, S = 4, 12, 3
MANIFEST = '{"splits": {"train": {"rows": 90}, "test": {"rows": 10}}, "classes": ["a", "b"]}'
SUMMARY = {"analyze_study": 1, "draw_figures": 1, "write_report": 1, "all": 1}
EVALUATION = {
    "evaluate_zero_shot": M, "evaluate_model": M + 3, "evaluate_adapter": 1, "evaluate_probe": 1
}  # fmt: skip
NEW_DATASET = {
    "prepare_dataset": 1, "embed_images": M, "embed_captions": M, "measure_task": M,
    "rehearse_task": M, "finetune_model": M + 3, "fit_cached": 2,
}  # fmt: skip
NEW_SHIFTED_TEST = {"prepare_shifted_test": 1, "embed_shifted_test": M}


def complete(checkout):
    """Create every output of the study in config.yaml, without content."""
    printed = run(checkout, "-n", "--study", "config.yaml")
    for names in re.findall(r"^    output: (.*)$", printed, re.M):
        for name in names.split(", "):
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # The resources of jobs are computed from the manifest.
            path.write_text(MANIFEST if path.name == "dataset.json" else "")
    options = ["--touch", "--forceall", "-q", "--profile", "profiles/local"]
    done = run_snakemake("-c", TOUCH, *options, cwd=checkout)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """Return a checkout in which the default study is complete."""
    from checkout import copy_checkout

    folder = copy_checkout(tmp_path_factory.mktemp("default"))
    complete(folder)
    return folder


@contextmanager
def apply_changes(checkout, changes):
    """Change files for a while: name -> new text or bytes, or None to delete the file."""
    before = {}
    for name, content in changes.items():
        path = checkout / name
        before[path] = (path.read_bytes(), path.stat()) if path.exists() else None
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    yield
    for path, original in before.items():
        if original is None:
            path.unlink()
        else:
            content, stat = original
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_study(**sections):
    """Replace sections of config.yaml. Its comments get lost, which reruns nothing."""
    return {"config.yaml": yaml.safe_dump(STUDY | sections, sort_keys=False)}


def change_method(name, **keys):
    """Replace keys of one method."""
    return change_study(methods=STUDY["methods"] | {name: STUDY["methods"][name] | keys})


def change_datasets(**entries):
    """Add or replace datasets."""
    return change_study(datasets=STUDY["datasets"] | entries)


def append(*names, text="\n# changed\n"):
    """Append a text to files, by default a comment."""
    return {name: (ROOT / name).read_bytes() + text.encode() for name in names}


def edit_library(name, text="\nCHANGED = True\n"):
    """Append a text to a module of the library, by default a statement."""
    return append(f"workflow_scripts/foretune/{name}", text=text)


def touch(*names):
    """Write files again with the same content."""
    return append(*names, text="")


def delete(*names):
    """Delete files below results/."""
    return {f"results/{name}": None for name in names}


def remove(section, name):
    """Remove an entry of a section of config.yaml."""
    return change_study(**{section: {k: v for k, v in STUDY[section].items() if k != name}})


# The files of one method. Deleting them is like adding the method.
LORA_FILES = [
    *(f"trials/clip_mini/lora/{dataset}/0/{file}" for dataset in STUDY["datasets"]
      for file in ("best.json", "epochs.parquet", "trained_weights.safetensors")),
    *(f"evaluations/clip_mini/lora{kind}.parquet"
      for kind in ("", "_classes", "_confusions", "_drift")),
]  # fmt: skip

# Name of a change -> the changed files, and the number of jobs by rule that it reruns.
CHANGES = {
    "nothing": ({}, {}),
    "a dataset added": (change_datasets(more=MORE), NEW_DATASET | EVALUATION | SUMMARY),
    # The evaluations predict nothing new; their tables lose rows.
    "a dataset removed": (remove("datasets", "stamps"), EVALUATION | SUMMARY),
    "datasets reordered": (change_study(datasets=dict(reversed(STUDY["datasets"].items()))), {}),
    "a shifted test added": (
        change_datasets(
            digits=MORE | {"shifted": {"mnist": {"parquet": "resources/mini/mnist.parquet"}}}
        ),
        NEW_SHIFTED_TEST | EVALUATION | SUMMARY,
    ),
    "a model added": (
        change_study(models=STUDY["models"] | {"more": {"folder": "resources/mini/clip"}}),
        {"embed_images": D, "embed_shifted_test": S, "embed_captions": D, "measure_task": D,
         "rehearse_task": D,
         "finetune_model": D, "evaluate_zero_shot": 1, "evaluate_model": 1} | SUMMARY,
    ),
    "a model removed": (remove("models", "coca_mini"), SUMMARY),
    "a method added": (
        delete(*LORA_FILES), {"finetune_model": D, "evaluate_model": 1} | SUMMARY
    ),
    "a method on one more model": (
        change_method("bitfit", models=["clip_mini", "coca_mini"]),
        {"finetune_model": D, "evaluate_model": 1} | SUMMARY,
    ),
    "a method removed": (remove("methods", "lora"), SUMMARY),
    "a grid point added": (
        change_method("full", learning_rate=[5.0e-4, 1.0e-4]),
        {"finetune_model": M * D, "evaluate_model": M} | SUMMARY,
    ),
    "a grid point of a probe added": (
        change_method("linear_probe", learning_rate=[1.0, 0.1, 0.01, 0.001]),
        {"fit_cached": D, "evaluate_probe": 1} | SUMMARY,
    ),
    # A probe has no captions. The measure EMMS uses the captions of other models too.
    "a caption template changed": (
        change_datasets(stamps=STUDY["datasets"]["stamps"] | {"caption": "the {} {y}"}),
        {"embed_captions": M, "measure_task": M, "rehearse_task": M,
         "finetune_model": M + 3, "fit_cached": 1}
        | {k: v for k, v in EVALUATION.items() if k != "evaluate_probe"} | SUMMARY,
    ),
    "a measure switched on": (
        change_study(measures=STUDY["measures"] | {"also": ["entropy_total"]}),
        {"measure_task": M * D} | SUMMARY,
    ),
    "a measure edited": (edit_library("measures/compute.py"), {"measure_task": M * D} | SUMMARY),
    "the probe's module edited": (
        edit_library("training/linear_probe.py"),
        {"fit_cached": 2 * D, "evaluate_adapter": 1, "evaluate_probe": 1} | SUMMARY,
    ),
    "the training loop edited": (
        edit_library("training/finetune.py"),
        {"finetune_model": (M + 3) * D, "evaluate_model": M + 3} | SUMMARY,
    ),
    "the evaluation edited": (
        edit_library("evaluation/finetuned.py"), {"evaluate_model": M + 3} | SUMMARY
    ),
    "the statistics edited": (edit_library("analysis/regression.py"), SUMMARY),
    "the report's charts edited": (
        edit_library("report/charts.py"), {"draw_figures": 1, "write_report": 1, "all": 1}
    ),
    "the figures edited": (edit_library("report/paper_figures.py"), {"draw_figures": 1, "all": 1}),
    "the report's template edited": (
        append("workflow_scripts/foretune/report/page/report.html.j2"),
        {"write_report": 1, "all": 1},
    ),
    "a config key of the report changed": (
        change_study(title="a {title}"), {"write_report": 1, "all": 1}
    ),
    "a licence added": (
        change_datasets(stamps=STUDY["datasets"]["stamps"] | {"licence": "CC0"}),
        {"write_report": 1, "all": 1},
    ),
    "trained weights deleted": (
        delete("trials/clip_mini/lora/stamps/0/trained_weights.safetensors"),
        {"finetune_model": 1, "evaluate_model": 1} | SUMMARY,
    ),
    "a probe's embeddings deleted": (
        delete("embeddings/clip_mini/flags/shifted/artists/test.parquet"),
        {"embed_shifted_test": 1, "evaluate_zero_shot": 1, "evaluate_adapter": 1,
         "evaluate_probe": 1} | SUMMARY,
    ),
    "a measure's file deleted": (
        delete("measures/clip_mini/stamps.json"), {"measure_task": 1} | SUMMARY
    ),
    "a table deleted": (delete("analysis/confusions.csv"), SUMMARY),
    "a figure deleted": (delete("figures/methods.svg"), {"draw_figures": 1, "all": 1}),
    "the report deleted": (delete("report.html"), {"write_report": 1, "all": 1}),
    "the provenance deleted": (delete("provenance.json"), {"write_report": 1, "all": 1}),
    "files touched": (
        touch("config.yaml", "resources/mini/mnist.parquet", "workflow_scripts/finetune.py",
                "workflow_scripts/foretune/training/finetune.py",
                "resources/mini/clip/merges.txt.gz"),
        {},
    ),
    "a comment in config.yaml": (append("config.yaml"), {}),
    "comments in the library": (
        edit_library("training/finetune.py", "\n# changed\n")
        | edit_library("data/prepare.py", "\n# changed\n"),
        {},
    ),
    "other weights": (
        append("resources/mini/coca/open_clip_model.safetensors"),
        {"embed_images": D, "embed_shifted_test": S, "embed_captions": D, "measure_task": D,
         "rehearse_task": D,
         "finetune_model": D, "evaluate_zero_shot": 1, "evaluate_model": 1} | SUMMARY,
    ),
}  # fmt: skip


# A dry run takes seconds. One change of each kind is tried in every run of CI.
IN_CI = (
    "nothing", "a dataset added", "a shifted test added", "a model added", "a method added",
    "a grid point added", "a caption template changed", "a measure edited",
    "the training loop edited", "the evaluation edited", "the report's charts edited",
    "a config key of the report changed", "trained weights deleted", "a table deleted",
    "files touched", "comments in the library", "other weights",
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=[] if name in IN_CI else pytest.mark.slow) for name in CHANGES],
)
def test_change_reruns_its_jobs_and_no_others(default, change):
    changes, expected = CHANGES[change]
    with apply_changes(default, changes):
        printed = run(default, "-n", "--study", "config.yaml")
    assert jobs(printed) == expected, printed[-3000:]


def test_replaced_files_rerun_their_jobs_whatever_their_time(default):
    """Snakemake compares only times of files above 1 MB, such as weights."""
    weights = "resources/mini/coca/open_clip_model.safetensors"
    for shift in (-1e6, 0, 1e6):  # seconds
        path = default / weights
        content, stat = path.read_bytes(), path.stat()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        moved = stat.st_mtime_ns + int(shift * 1e9)
        os.utime(path, ns=(moved, moved))
        printed = run(default, "-n", "--study", "config.yaml")
        path.write_bytes(content)  # with a new time, which reruns nothing
        assert jobs(printed) == CHANGES["other weights"][1], shift
    assert jobs(run(default, "-n", "--study", "config.yaml")) == {}


def test_rule_all_asks_for_every_output(default):
    """Otherwise a lost file would go unnoticed as long as the files made from it are there."""
    printed = run(default, "-n", "--study", "config.yaml", "--forceall")
    outputs = {name for names in re.findall(r"^    output: (.*)$", printed, re.M)
               for name in names.split(", ")}  # fmt: skip
    targets = re.search(r"^rule all:\n    input: (.*)$", printed, re.M)[1].split(", ")
    assert outputs <= set(targets)


def test_changed_file_of_a_local_source_reruns_its_preparation(checkout):
    """Also behind a link, and of a table. Names are in any script, and settings of any length."""
    public_files.clip_benchmark(checkout / "tars", ["crow", "jay"], {"train": 20, "test": 4})
    for number in range(20):
        path = checkout / f"{'linked/crow' if number % 2 else 'images/jay'}/{number}.png"
        public_files.put(path, public_files.encoded("PNG"))
    (checkout / "images/crow").symlink_to("../linked/crow")
    labels = [f"{number:03}" for number in range(700)]
    rows = [f"images/jay/0.png,{label},{split}" for label in labels for split in ("train", "test")]
    rows += ["images/jay/2.png,000,train"] * 20
    (checkout / "list.csv").write_text("\n".join(["file,label,split", *rows]))
    table = {
        "table": "list.csv", "image": "{file}", "label": "label",
        "splits": {split: f"split == '{split}'" for split in ("train", "test")},
        "classes": {label: f"{label} {'name ' * 40}" for label in labels},
    }  # fmt: skip
    entries = {
        "bläuliche_鳥": {"folder": "images"},
        "packed": {"webdataset": "tars"},
        "many": table,
    }
    assert len(json.dumps(entries["many"])) > 128 * 1024
    smoke = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    (checkout / "own.yaml").write_text(yaml.safe_dump(smoke | {"datasets": entries}))
    wanted = ["--study", "own.yaml", *(f"results/datasets/{name}/dataset.json" for name in entries)]
    assert jobs(run(checkout, *wanted, env=NO_SERVER)) == {"prepare_dataset": 3}
    manifest = json.loads((checkout / "results/datasets/many/dataset.json").read_text())
    assert len(manifest["classes"]) == 700 and manifest["splits"]["test"]["rows"] == 700
    assert jobs(run(checkout, "-n", *wanted)) == {}
    public_files.put(checkout / "linked/crow/more.png", public_files.encoded("PNG"))
    public_files.clip_benchmark(checkout / "tars", ["crow", "jay"], {"train": 24, "test": 4})
    assert jobs(run(checkout, "-n", *wanted)) == {"prepare_dataset": 2}
    public_files.put(checkout / "images/jay/2.png", public_files.encoded("PNG"))
    assert jobs(run(checkout, "-n", *wanted)) == {"prepare_dataset": 3}
