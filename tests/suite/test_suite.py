"""The bundled encoders on the bundled tasks, and the bundled results of the forecast study."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import read_manifest, read_split
from foretune.data.sources.local import read_parquet_source
from foretune.encoders.cache import read_task_embeddings
from foretune.encoders.encode import embed_captions, embed_images
from foretune.encoders.loading import digest_weights, encode_text, load_model
from foretune.evaluation.on_embeddings import evaluate_zero_shot
from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
from foretune.forecast.inputs import read_study_results
from foretune.measures.compute import compute_measures
from foretune.suite.compare import (
    bundle_study,
    digest_study_sources,
    list_tasks,
    zero_shot_accuracies,
)

MINI = ROOT / "resources/mini"
ENCODERS = ["clip", "siglip", "coca", "eva02"]


def prepare_and_embed(name, folder, encoder=CLIP_MINI):
    """Prepare and embed a bundled dataset; return the folder of the prepared dataset."""
    prepare_dataset(name, {"parquet": MINI / f"{name}.parquet"}, folder / name, 0)
    embed_images(encoder, folder / name, folder / "embeddings")
    embed_captions(encoder, folder / name, None, folder / "embeddings/text.parquet")
    return folder / name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bundled_encoder_is_small_trained_and_loads(encoder):
    folder = MINI / encoder
    assert (folder / "open_clip_model.safetensors").stat().st_size < 5_000_000
    model, _, tokenizer = load_model({"folder": folder})
    tower = getattr(model, "text", model)
    assert tokenizer.vocab_size == tower.vocab_size
    assert tokenizer(["a photo of a dog"]).shape == (1, tokenizer.context_length)
    history = json.loads((folder / "pretraining.json").read_text())
    # The loss has flattened: the last tenth of the steps gave less than a twentieth of its fall.
    losses = [row["loss"] for row in history]
    assert losses[-1] > losses[-len(losses) // 10] - 0.05 * (losses[0] - losses[-1])


@pytest.mark.parametrize(
    "encoder, family, attention",
    [
        ("clip", "CLIP", "visual.transformer.resblocks.0.attn.in_proj_weight"),
        ("siglip", "CustomTextCLIP", "visual.trunk.blocks.0.attn.qkv.weight"),
        ("coca", "CoCa", "visual.transformer.resblocks.0.attn.in_proj_weight"),
        ("eva02", "CustomTextCLIP", "visual.trunk.blocks.0.attn.q_proj.weight"),
    ],
)
def test_bundled_encoder_has_the_layer_names_of_its_family(encoder, family, attention):
    model, _, _ = load_model({"folder": MINI / encoder}, weights=False)
    assert type(model).__name__ == family
    assert attention in model.state_dict()
    stem = model.visual.conv1 if family in ("CLIP", "CoCa") else model.visual.trunk.patch_embed.proj
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in stem) == 4


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encode_text_with_a_cut_context_equals_the_whole_context(encoder):
    model, _, tokenizer = load_model({"folder": MINI / encoder})
    tokens = tokenizer(["a dog", 'a photo of the number: "7"', "a red circle on a blue background"])
    with torch.inference_mode():
        whole = model.encode_text(tokens, normalize=False)
        # float32 has an error of 1e-7 per operation; the vectors' components are around 1.
        assert torch.allclose(encode_text(model, tokens), whole, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_suite_spans_a_range_of_accuracies_and_of_iimm(encoder, tmp_path):
    """The criteria by which the suite was chosen; there are no others."""
    tasks = [path for path in list_tasks(MINI) if not path.stem.endswith("_artists")]
    accuracies = zero_shot_accuracies(MINI / encoder, tasks)
    chances = {path.stem: 1 / len(read_parquet_source(path).classes) for path in tasks}
    assert any(accuracies[name] < 1.5 * chances[name] for name in chances)
    assert max(accuracies.values()) > 0.8
    assert sum(0.25 <= accuracy <= 0.75 for accuracy in accuracies.values()) >= 3
    iimm = []
    for path in tasks:
        folder = prepare_and_embed(path.stem, tmp_path, {"folder": str(MINI / encoder)})
        embeddings = tmp_path / "embeddings"
        images, texts = read_task_embeddings(embeddings, "train", read_manifest(folder)["digest"])
        labels = images.columns["label"]
        iimm.append(compute_measures(images.vectors, texts.vectors, labels)["iimm"])
    assert max(iimm) - min(iimm) >= 0.3


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_evaluate_zero_shot_is_above_twice_chance_on_digits(name, tmp_path):
    folder = prepare_and_embed(name, tmp_path)
    images, texts = (tmp_path / f"embeddings/{name}.parquet" for name in ("test", "text"))
    tables = [tmp_path / f"{name}.parquet" for name in ("rows", "classes", "confusions")]
    test = EvaluationTest(folder, images, texts)
    evaluate_zero_shot("clip_mini", [test], EvaluationOutputs(tmp_path, *tables))
    row = pd.read_parquet(tmp_path / "rows.parquet").iloc[0]
    assert row.n == len(read_split(folder, "test")) and row.chance == 0.1
    assert row.accuracy > 2 * row.chance


@pytest.mark.slow
def test_finetune_in_full_reaches_95_percent_on_mnist(tmp_path):
    from foretune.core.config import check_config
    from foretune.core.grid import expand_grid
    from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
    from foretune.training.finetune import finetune
    from foretune.training.trials import JobSpec, select_trial

    folder, text = prepare_and_embed("mnist", tmp_path), tmp_path / "embeddings/text.parquet"
    (tmp_path / "base").mkdir()
    (tmp_path / "base/mnist").symlink_to(tmp_path / "embeddings")
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    recipe = check_config(study)["methods"]["full"]
    run = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
    job = JobSpec(run, recipe, expand_grid(recipe), 0, folder, tmp_path / "trials")
    finetune(job, CLIP_MINI, text)
    select_trial([tmp_path / "trials/best.json"], tmp_path / "best.json")
    base = BaseModel(CLIP_MINI, tmp_path / "base", tmp_path / "prepared")
    tables = [tmp_path / f"{name}.parquet" for name in ("r", "c", "pairs", "m")]
    tests = [EvaluationTest(folder, texts=text)]
    outputs = FineTunedOutputs(tmp_path, *tables)
    evaluate_model([tmp_path / "best.json"], base, tests, outputs, code="c")
    assert pd.read_parquet(tmp_path / "r.parquet").accuracy[0] >= 0.95


def test_bundled_study_is_of_the_bundled_encoders_tasks_and_recipes(monkeypatch):
    """If this fails, the forecast study was changed: run `make forecast-study`."""
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("studies/forecast.yaml").read_text())
    path = MINI / "study/analysis/tasks.parquet"
    assert path.stat().st_size < 150_000
    tasks, facts = read_study_results(path.parent)
    assert facts["sources"] == digest_study_sources(config)
    for name, entry in config["models"].items():
        assert facts["weights"][name] == digest_weights(load_model(entry)[0])
    runs = {
        (model, method, dataset)
        for method, recipe in config["methods"].items()
        for model in recipe.get("models", config["models"])
        for dataset in config["datasets"]
    }
    assert set(tasks[["model", "method", "dataset"]].itertuples(index=False, name=None)) == runs
    assert len(tasks) == len(runs) and tasks[["accuracy", "iimm"]].notna().all(axis=None)


def test_bundle_study_copies_the_forecast_study_and_refuses_another(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("studies/forecast.yaml").read_text())
    bundle_study(MINI / "study", config, tmp_path)
    copy, original = (folder / "analysis/tasks.parquet" for folder in (tmp_path, MINI / "study"))
    assert pq.read_table(copy).equals(pq.read_table(original))
    assert read_metadata(copy) == read_metadata(original)
    del config["methods"]["lora"]
    with pytest.raises(
        ForetuneError, match=r"tasks\.parquet: its methods are .*lora.*, but the conf"
    ):
        bundle_study(MINI / "study", config, tmp_path)
