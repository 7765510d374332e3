"""The memory and time that jobs ask of a cluster."""

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import save_file

from checkout import CLIP_MINI, ROOT
from foretune.encoders.loading import load_model
from foretune.planning.job_resources import (
    count_fitting_work,
    count_parameters,
    count_training_images,
    count_weight_copies,
    get_memory_mb,
    get_minutes,
    read_architectures,
)
from foretune.planning.model_costs import count_costs
from smoke import run


@pytest.mark.parametrize(
    ("spec", "millions"),
    [({"architecture": "ViT-B-32"}, 151), ({"architecture": "ViT-H-14-worldwide"}, 1859),
     ({"architecture": "xlm-roberta-base-ViT-B-32"}, 366),
     ({"hub": "timm/ViT-B-16-SigLIP2"}, 375), ({"hub": "timm/ViT-SO400M-14-SigLIP-384"}, 878),
     ({"hub": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"}, 2540),
     ({"hub": "apple/DFN5B-CLIP-ViT-H-14-378"}, 987), ({"hub": "timm/PE-Core-B-16"}, 448),
     ({"hub": "me/huge-model"}, 1200), ({"hub": "me/Gigantic"}, 2600), ({"hub": "me/it"}, 260)],
)  # fmt: skip
def test_count_parameters_by_the_architecture_or_a_word(spec, millions):
    assert count_parameters(spec) / 1e6 == pytest.approx(millions, abs=0.6)


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "ViT-B-16-SigLIP2", "PE-Core-B-16"])
def test_the_bundled_sizes_are_those_of_open_clip(name):
    cost, known = count_costs({"architecture": name}), read_architectures()[name]
    assert (cost.parameters, round(cost.image), round(cost.caption)) == known


def test_count_parameters_reads_weights_in_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--me--ViT-B-32/snapshots/0a"
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(7, 5)}, folder / "open_clip_model.safetensors")
    assert count_parameters({"hub": "me/ViT-B-32"}) == 35


def test_count_parameters_reads_weights_or_the_config():
    model, _, _ = load_model(CLIP_MINI)
    assert count_parameters(CLIP_MINI) == sum(
        tensor.numel() for tensor in model.state_dict().values()
    )
    assert count_parameters({"architecture": "mine", "parameters": 7e8}) == 7e8


def test_job_resources_grow_with_model_and_data():
    base, large = {"architecture": "ViT-B-32"}, {"architecture": "ViT-bigG-14"}
    assert (
        get_memory_mb(10)
        < get_memory_mb(1000)
        < get_memory_mb(1000, base, 8)
        < get_memory_mb(1000, large, 8)
    )
    assert get_memory_mb(1000, large, 8) > 8 * 4 * 2540  # its weights in float32, eight times
    # LoRA keeps what training adds for a hundredth of the weights.
    assert count_weight_copies("full") == 8
    assert 3 < count_weight_copies("lora_4shot_seed1") < 3.1 < count_weight_copies("attention") < 5
    # Images are read a few at a time.
    assert get_memory_mb(10, images_mb=40_000) < get_memory_mb(10_000)
    manifest = {"splits": {"train": {"rows": 1000}}, "classes": ["a", "b"]}
    recipe = {"epochs": 3, "batch_size": 100, "towers": "both"}
    assert count_training_images(recipe, 2, manifest) == 2 * 3 * (1000 + 10 * 2)
    one, more = ([{"reduction": 4}] * n for n in (1, 12))
    assert count_fitting_work(recipe, more, 1000, 10) == pytest.approx(
        12 * count_fitting_work(recipe, one, 1000, 10)
    )
    assert get_minutes(base, 1e6) < get_minutes(base, 1e7) < get_minutes(large, 1e7)


def test_rules_ask_by_their_share_of_a_large_dataset(checkout):
    """Images are read a few at a time, and each shard's job reads only its own."""
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    source = {"parquet": "resources/mini/digits.parquet"}
    study["datasets"] = {"whole": source, "divided": {**source, "shards": 4}}
    study["models"] = {"clip_mini": {"hub": "me/mine", "parameters": 1e8}}
    study["methods"]["full"]["epochs"] = 30
    study["methods"]["linear_probe"]["features"] = "pooled"
    (checkout / "large.yaml").write_text(yaml.safe_dump(study))
    rows = {"train": {"rows": 10_000_000}, "test": {"rows": 400_000}}
    for name in study["datasets"]:
        folder = checkout / "results/datasets" / name
        folder.mkdir(parents=True)
        for split in ("train", "val", "test"):
            with open(folder / f"{split}.parquet", "w") as file:
                file.truncate(20_000 << 20)  # a sparse file
        content = {"splits": rows, "classes": ["a", "b"]}
        (folder / "dataset.json").write_text(json.dumps(content))
    wanted = [f"results/embeddings/clip_mini/{name}/train.parquet" for name in study["datasets"]]
    wanted.append("results/trials/clip_mini/full/whole/0/best.json")
    wanted.append("results/evaluations/clip_mini/linear_probe.parquet")
    printed = run(checkout, "-n", "--study", "large.yaml", *wanted)
    asked = {}
    for rule, block in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", printed, re.M):
        # Rules whose inputs do not exist yet ask later.
        known = re.findall(r"(mem_mb|runtime)=(\d+)", block)
        asked[rule] = {name: int(value) for name, value in known}
    whole, shard = asked["embed_images"], asked["embed_shard"]
    assert whole["mem_mb"] == shard["mem_mb"] == pytest.approx(3000 + 6000 + 800, abs=2)
    assert shard["runtime"] - 30 == pytest.approx((whole["runtime"] - 30) / 4, abs=1)
    assert [asked[f"embed_pooled{kind}"] for kind in ("", "_shard")] == [whole, shard]
    assert "join_pooled_shards" in asked
    assert asked["finetune_model"]["runtime"] == 24 * 60  # it resumes at its last epoch
    assert whole["runtime"] - 30 == pytest.approx(10.4e6 / 2 * 1e8 * 235 * 3 / 27e12 / 60, abs=1)
