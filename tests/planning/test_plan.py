"""The plan of a study before its first job."""

import pytest
import yaml

import forked
from checkout import ROOT
from foretune.core.config import CONFIG_SCHEMA, check_config, trains_on_embeddings
from foretune.planning.dataset_sizes import (
    KNOWN_SIZES,
    DatasetSize,
    get_dataset_size,
    get_dataset_sizes,
)
from foretune.planning.footprint import estimate_disk, estimate_gpu_memory
from foretune.planning.job_times import GPU_RULES, JobTimes, PlannedJob, count_gpus, read_jobs
from foretune.planning.model_costs import ModelEstimates, count_costs
from foretune.planning.plan import plan_study

SMOKE = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def make_times(sections=(), **recipe) -> JobTimes:
    """Return the times of the smoke study's full fine-tuning, with some keys of it replaced."""
    study = {**SMOKE, "methods": {"full": {**SMOKE["methods"]["full"], **recipe}}}
    study = check_config({**study, **dict(sections)})
    costs = {"clip_mini": count_costs(study["models"]["clip_mini"])}
    return JobTimes(study, get_dataset_sizes(study), ModelEstimates(costs))


FINETUNING = PlannedJob(
    "finetune_model", {"model": "clip_mini", "method": "full", "dataset": "mnist", "part": "0"}
)
EVALUATION = PlannedJob("evaluate_model", {"model": "clip_mini", "method": "full"})
EMBEDDING = PlannedJob("embed_images", {"model": "clip_mini", "dataset": "digits"})


def test_count_costs_needs_no_weights():
    cost = count_costs({"architecture": "ViT-B-32", "pretrained": "openai"})
    # 2 x 4.4 G multiply-adds per image, as in open_clip's own table; 151 M parameters.
    assert cost.image == pytest.approx(8.8e9, rel=0.01) and cost.parameters == 151_277_313
    assert (cost.pixels, cost.width) == (224, 512)
    mini = count_costs(SMOKE["models"]["clip_mini"])
    assert mini.pixels == 32 and mini.image < cost.image / 50


def test_get_dataset_sizes_counts_or_knows_them(tmp_path):
    assert get_dataset_sizes(check_config(SMOKE), tmp_path)["mnist"] == DatasetSize(
        1800, 200, 1000, 10, "counted in the file"
    )
    for number in range(10):
        image = tmp_path / f"{'crow' if number % 2 else 'jay'}/{number}.png"
        image.parent.mkdir(exist_ok=True)
        image.touch()
    birds = get_dataset_size("birds", {"folder": str(tmp_path)}, tmp_path / "none")
    assert (birds.train, birds.val, birds.test, birds.classes) == (8, 0, 2, 2)
    cars = get_dataset_size("x", {"webdataset": "clip-benchmark/wds_cars"}, tmp_path)
    assert (cars.train + cars.val, cars.test, cars.classes) == KNOWN_SIZES["cars"]
    assert get_dataset_size("x", {"huggingface": "a/imagenet-r"}, tmp_path).test == 30_000
    assert "unknown" in get_dataset_size("x", {"huggingface": "me/mine"}, tmp_path).basis


def test_a_frozen_text_tower_costs_no_captions_and_a_probe_one_pass():
    tuning, captions = FINETUNING, make_times().costs["clip_mini"].caption
    both, image = (make_times(towers=t).estimate_seconds([tuning])[0] for t in ("both", "image"))
    recipe = SMOKE["methods"]["full"]
    steps = -(-1800 // recipe.get("batch_size", 128))
    saved = 3 * recipe["epochs"] * steps * 10 * captions * len(recipe["learning_rate"]) / 100e12
    assert both - image == pytest.approx(saved)
    times = make_times({"methods": {"lp_ft": recipe}})
    job = PlannedJob(tuning.rule, {**tuning.wildcards, "method": "lp_ft"})
    assert times.estimate_seconds([job])[0] == pytest.approx(
        image + times.time_encoding("clip_mini", 1800)
    )


def test_every_method_of_the_schema_can_be_planned():
    schema = yaml.safe_load(CONFIG_SCHEMA.read_text())
    methods = schema["properties"]["methods"]["properties"]
    recipe = {"learning_rate": [1.0], "batch_size": 32}
    study = check_config({**SMOKE, "methods": {name: dict(recipe) for name in methods}})
    sizes, costs = get_dataset_sizes(study), make_times().costs
    assert estimate_disk(study, sizes, costs)["trials (trained weights)"] > 0
    tuned = [name for name in methods if not trains_on_embeddings(name)]
    needed = estimate_gpu_memory(study, sizes, costs)
    assert {method for _, method in needed} == set(tuned)
    assert needed["clip_mini", "flyp"] == needed["clip_mini", "full"] > needed["clip_mini", "lora"]
    times = JobTimes(study, sizes, ModelEstimates(costs))
    for name in methods:
        rule = "finetune_model" if name in tuned else "fit_cached"
        job = PlannedJob(rule, {**FINETUNING.wildcards, "method": name})
        assert times.estimate_seconds([job])[0] > 2


def test_estimate_seconds_follows_the_grid():
    once, more, halved = (
        make_times(epochs=27, **keys).estimate_seconds([FINETUNING])[0] - 5  # without the start
        for keys in (
            {"learning_rate": [1.0]},
            {"learning_rate": [float(i + 1) for i in range(9)]},
            {"learning_rate": [float(i + 1) for i in range(9)], "search": {"kind": "halving"}},
        )
    )
    assert more == pytest.approx(9 * once)
    assert halved == pytest.approx(once * (9 * 3 + 3 * 6 + 1 * 18) / 27)


def test_estimate_seconds_is_shared_by_a_models_gpus():
    one, two = (
        make_times({"models": {"clip_mini": {**SMOKE["models"]["clip_mini"], "gpus": count}}})
        for count in (1, 2)
    )
    (alone,), (shared,) = one.estimate_seconds([FINETUNING]), two.estimate_seconds([FINETUNING])
    assert alone - 5 == pytest.approx(2 * (shared - 5))
    assert [count_gpus(times.study, FINETUNING) for times in (one, two)] == [1, 2]
    assert count_gpus(two.study, EMBEDDING) == 1
    assert count_gpus(two.study, PlannedJob("measure_task", {"model": "clip_mini"})) == 0


def test_estimate_disk_has_original_and_prepared_images(tmp_path):
    digits = {"parquet": "resources/mini/digits.parquet"}
    images = get_dataset_size("digits", digits, tmp_path).images
    sharded = {"datasets": {"digits": {**digits, "shards": 2}}}
    tuned = make_times(sharded)
    disk = estimate_disk(tuned.study, tuned.sizes, tuned.costs, tmp_path)
    assert disk["datasets (original images)"] == (ROOT / digits["parquet"]).stat().st_size
    assert disk["prepared (may be deleted)"] == images * 3 * 32 * 32
    probed = make_times(sharded | {"methods": {"linear_probe": {"learning_rate": [1.0]}}})
    disk = estimate_disk(probed.study, probed.sizes, probed.costs, tmp_path)
    assert disk["prepared (may be deleted)"] == 0
    assert estimate_gpu_memory(probed.study, probed.sizes, probed.costs) == {}


def test_plan_counts_hidden_features_and_pilots(tmp_path):
    times = make_times({"datasets": {"digits": {"parquet": "resources/mini/digits.parquet"}},
                        "forecast": {"pilot": {"steps": 20}}}, epochs=4)  # fmt: skip
    cost, size = times.costs["clip_mini"], times.sizes["digits"]
    assert (cost.width, cost.hidden_width) == (128, 256)
    disk = estimate_disk(times.study, times.sizes, times.costs, tmp_path)
    assert disk["embeddings"] == 4 * (128 * size.images + 256 * size.train)
    wildcards = {"model": "clip_mini", "method": "full", "dataset": "digits"}
    pilot, training = times.estimate_seconds([
        PlannedJob("pilot_model", wildcards),
        PlannedJob("finetune_model", wildcards | {"part": "0"}),
    ])  # fmt: skip
    assert 5 < pilot < training
    large = count_costs({"architecture": "ViT-B-32", "pretrained": "openai"})
    assert large.hidden_width == 2 * 768


def test_plan_counts_pooled_outputs_of_the_models_that_need_them(tmp_path):
    digits = {"datasets": {"digits": {"parquet": "resources/mini/digits.parquet"}}}
    none, pooled = (
        make_times(digits | {"methods": {"linear_probe": {"learning_rate": [1.0], **keys}}})
        for keys in ({}, {"features": "pooled"})
    )
    cost, size = pooled.costs["clip_mini"], pooled.sizes["digits"]
    clip = count_costs({"architecture": "ViT-B-32", "pretrained": "openai"})
    siglip = count_costs({"architecture": "ViT-B-16-SigLIP", "pretrained": "webli"})
    assert [(each.width, each.pooled_width) for each in (clip, siglip)] == [(512, 768), (768, 768)]
    cost.pooled_width = 300
    extra = [estimate_disk(times.study, times.sizes, times.costs, tmp_path)["embeddings"]
             for times in (none, pooled)]  # fmt: skip
    assert extra[1] - extra[0] == 4 * 300 * size.images
    wildcards = {"model": "clip_mini", "dataset": "digits"}
    fit = PlannedJob("fit_cached", wildcards | {"method": "linear_probe", "part": "0"})
    (narrow,), (wide,) = (times.estimate_seconds([fit]) for times in (none, pooled))
    assert wide - 2.5 == pytest.approx((narrow - 2.5) * 300 / cost.width)
    shard = PlannedJob("embed_pooled_shard", wildcards | {"shard": "0", "shards": "2"})
    whole = PlannedJob("embed_pooled", wildcards)
    embedding, pooling, half = pooled.estimate_seconds([EMBEDDING, whole, shard])
    assert 5 < half < embedding and 5 < pooling < embedding
    # The predictions of fine-tuned models do not rest on pooled outputs.
    assert make_times().estimate_seconds([whole, EVALUATION])[-1] == 5


def test_estimate_gpu_memory_shares_the_batch_over_gpus():
    one, two = (
        make_times({"models": {"clip_mini": {**SMOKE["models"]["clip_mini"], "gpus": count}}})
        for count in (1, 2)
    )
    (alone,), (shared,) = (
        estimate_gpu_memory(times.study, times.sizes, times.costs).values() for times in (one, two)
    )
    assert one.costs["clip_mini"].parameters * 4 * 3 < shared < alone


def test_estimate_seconds_of_an_evaluation_counts_new_pairs_only():
    times = make_times()
    nothing, new_test, new_run = (
        times.estimate_seconds([*jobs, EVALUATION])[-1] for jobs in ([], [EMBEDDING], [FINETUNING])
    )
    assert 5 == nothing < new_test < new_run


def test_plan_script_prints_the_jobs_that_snakemake_lists(checkout):
    command = ["workflow_scripts/plan.py", "--study", "studies/smoke.yaml"]
    done = forked.run(*command, cwd=checkout)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.strip()}
    assert rows["finetune_model"] == "2" and rows["fit_cached"] == "4" and "all" not in rows
    assert "timed on" in done.stdout and "counted in the file (mnist" in done.stdout
    assert not (checkout / "results").exists()
    (checkout / "studies/smoke.yaml").write_text("methodz: {}")
    done = forked.run(*command, cwd=checkout)
    assert done.returncode == 1 and "did you mean methods?" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_study_estimates_a_hub_model_that_was_not_fetched():
    study = check_config({**SMOKE, "models": {"big": {"hub": "timm/ViT-L-16-SigLIP-256"}}})
    printed = plan_study(study, [PlannedJob("embed_images", {"model": "big", "dataset": "mnist"})])
    assert "big: cannot be built on this machine" in printed
    assert "assumed to be a ViT-B/16 with 2.5 times the weights" in printed
    assert "timed on" not in printed


def test_gpu_rules_are_those_that_a_cluster_gives_gpus():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert set(profile["__variables__"]["gpu_rules"]) == GPU_RULES


def test_plan_study_of_no_jobs_says_that_nothing_is_left():
    assert read_jobs("Nothing to be done\n") == []
    assert plan_study(check_config(SMOKE), []) == "Nothing is left to run."
