"""The estimate before the first job."""

import subprocess
import sys

import pytest
import yaml

from checkout import ROOT
from foretune.core.config import check_config
from foretune.planning.dataset_sizes import (
    KNOWN_SIZES,
    DatasetSize,
    get_dataset_size,
    get_dataset_sizes,
)
from foretune.planning.model_costs import count_costs
from foretune.planning.plan import GPU_RULES, Plan, PlannedJob, plan_study, read_jobs
from smoke import ENV

SMOKE = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def make_plan(sections=(), **full):
    study = {**SMOKE, "methods": {"full": {**SMOKE["methods"]["full"], **full}}}
    study = check_config({**study, **dict(sections)})
    costs = {"clip_mini": count_costs(study["models"]["clip_mini"])}
    return Plan(study, get_dataset_sizes(study), costs, {})


def seconds(plan, *jobs):
    return plan.seconds([PlannedJob(rule, dict(wildcards)) for rule, wildcards in jobs])


TUNING = (
    "finetune_model",
    {"model": "clip_mini", "method": "full", "dataset": "mnist", "part": "0"},
)
EVALUATING = ("evaluate_model", {"model": "clip_mini", "method": "full"})


def test_costs_are_counted_without_weights():
    cost = count_costs({"architecture": "ViT-B-32", "pretrained": "openai"})
    # 2 x 4.4 G multiply-adds an image, as open_clip's own table has; 151 M parameters.
    assert cost.image == pytest.approx(8.8e9, rel=0.01) and cost.parameters == 151_277_313
    assert (cost.pixels, cost.width) == (224, 512)
    mini = count_costs(SMOKE["models"]["clip_mini"])
    assert mini.pixels == 32 and mini.image < cost.image / 50


def test_sizes_are_counted_or_known(tmp_path):
    assert get_dataset_sizes(check_config(SMOKE), tmp_path)["mnist"] == DatasetSize(
        1800, 200, 1000, 10, "counted in its file"
    )
    for number in range(10):
        image = tmp_path / f"{'crow' if number % 2 else 'jay'}/{number}.png"
        image.parent.mkdir(exist_ok=True)
        image.touch()
    found = get_dataset_size("birds", {"folder": str(tmp_path)}, tmp_path / "none")
    assert (found.train, found.val, found.test, found.classes) == (8, 0, 2, 2)
    cars = get_dataset_size("x", {"webdataset": "clip-benchmark/wds_cars"}, tmp_path)
    assert (cars.train + cars.val, cars.test, cars.classes) == KNOWN_SIZES["cars"]
    assert get_dataset_size("x", {"huggingface": "a/imagenet-r"}, tmp_path).test == 30_000
    assert "not known" in get_dataset_size("x", {"huggingface": "me/mine"}, tmp_path).basis


def test_hours_follow_the_grid():
    once, more, halved = (
        seconds(make_plan(epochs=27, **keys), TUNING)[0] - 5  # without the job's start
        for keys in (
            {"learning_rate": [1.0]},
            {"learning_rate": [float(i + 1) for i in range(9)]},
            {"learning_rate": [float(i + 1) for i in range(9)], "search": {"kind": "halving"}},
        )
    )
    assert more == pytest.approx(9 * once)
    assert halved == pytest.approx(once * (9 * 3 + 3 * 6 + 1 * 18) / 27)


def test_hours_are_shared_by_a_models_gpus():
    one, two = (make_plan({"models": {"clip_mini": {**SMOKE["models"]["clip_mini"], "gpus": n}}})
                for n in (1, 2))  # fmt: skip
    assert seconds(one, TUNING)[0] - 5 == pytest.approx(2 * (seconds(two, TUNING)[0] - 5))
    assert (one.gpus("finetune_model", "clip_mini"), two.gpus("finetune_model", "clip_mini")) == (
        1,
        2,
    )
    assert two.gpus("embed_shard", "clip_mini") == 1 and two.gpus("measure_task", "clip_mini") == 0


def test_disk_has_images_as_they_came_and_as_they_are_prepared(tmp_path):
    digits = {"parquet": "resources/mini/digits.parquet"}
    rows, pixels = sum(get_dataset_size("digits", digits, tmp_path).__dict__[s] for s in
                       ("train", "val", "test")), 3 * 32 * 32  # fmt: skip
    sharded = {"datasets": {"digits": {**digits, "shards": 2}}}
    tuned = make_plan(sharded).disk(tmp_path)
    assert tuned["datasets (images as they came)"] == (ROOT / digits["parquet"]).stat().st_size
    assert tuned["prepared (may be deleted)"] == rows * pixels
    probed = make_plan(sharded | {"methods": {"linear_probe": {"learning_rate": [1.0]}}})
    assert probed.disk(tmp_path)["prepared (may be deleted)"] == 0


def test_an_evaluation_costs_its_new_pairs():
    plan = make_plan()
    nothing, one = (seconds(plan, *jobs)[-1] for jobs in ([EVALUATING], [TUNING, EVALUATING]))
    column = seconds(
        plan, ("embed_images", {"model": "clip_mini", "dataset": "digits"}), EVALUATING
    )[-1]
    assert 5 == nothing < column < one


def test_jobs_are_those_that_snakemake_lists(checkout):
    command = [sys.executable, "workflow_scripts/plan.py", "--study", "studies/smoke.yaml"]
    done = subprocess.run(command, cwd=checkout, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.strip()}
    assert rows["finetune_model"] == "2" and rows["fit_cached"] == "4" and "all" not in rows
    assert "timed on" in done.stdout and "counted in its file: mnist" in done.stdout
    assert not (checkout / "results").exists()
    (checkout / "studies/smoke.yaml").write_text("metods: {}")
    done = subprocess.run(command, cwd=checkout, env=ENV, capture_output=True, text=True)
    assert done.returncode == 1 and "did you mean methods?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hubs_model_that_was_not_fetched_is_estimated():
    study = check_config({**SMOKE, "models": {"big": {"hub": "timm/ViT-L-16-SigLIP-256"}}})
    printed = plan_study(study, [PlannedJob("embed_images", {"model": "big", "dataset": "mnist"})])
    assert "big: cannot be built here" in printed
    assert "taken for a ViT-B/16 with 2.5 times the weights" in printed
    assert "timed on" not in printed


def test_gpu_hours_are_of_the_rules_that_a_cluster_gives_gpus():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert set(profile["__variables__"]["gpu_rules"]) == GPU_RULES


def test_nothing_left_is_said():
    assert read_jobs("Nothing to be done\n") == []
    assert plan_study(check_config(SMOKE), []) == "Nothing is left to run."
