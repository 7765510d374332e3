"""The bundled suite: its encoders, its tasks, and what was kept out of the corpus."""

import json
import shutil
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import ImageFont

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.core.parquet import write_parquet
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import read_manifest, read_split
from foretune.data.sources.local import read_parquet_source
from foretune.encoders.cache import read_task_embeddings
from foretune.encoders.encode import embed_captions, embed_images
from foretune.encoders.loading import digest_weights, encode_text, load_model
from foretune.evaluation.on_embeddings import evaluate_zero_shot
from foretune.forecast.forecast import read_study_results
from foretune.measures.compute import compute_measures
from foretune.suite import corpus
from foretune.suite import drawn as bundles_drawn
from foretune.suite import pretrain as pretraining
from foretune.suite.bundles import encode_png
from foretune.suite.compare import (
    bundle_study,
    compare_data,
    list_tasks,
    study_sources,
    zero_shot_accuracies,
)
from foretune.suite.leak_check import find_leaks, index_corpus
from foretune.suite.pretrain import build_vocabulary, pretrain

MINI = ROOT / "resources/mini"
ENCODERS = ["clip", "siglip", "coca", "eva02"]


def prepared(name, folder, encoder=CLIP_MINI):
    """The folder of a bundled dataset, embedded whole."""
    prepare_dataset(name, {"parquet": MINI / f"{name}.parquet"}, folder / name, 0)
    embed_images(encoder, folder / name, folder / "embeddings")
    embed_captions(encoder, folder / name, None, folder / "embeddings/text.parquet")
    return folder / name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_is_small_and_loads_whole(encoder):
    folder = MINI / encoder
    assert (folder / "open_clip_model.safetensors").stat().st_size < 5_000_000
    model, _, tokenizer = load_model({"folder": folder})
    tower = getattr(model, "text", model)
    assert tokenizer.vocab_size == tower.vocab_size
    assert tokenizer(["a photo of a dog"]).shape == (1, tokenizer.context_length)
    history = json.loads((folder / "pretraining.json").read_text())
    # Flattened: the last tenth of the steps won less than a twentieth of the whole descent.
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
def test_an_encoder_is_of_its_family_and_spells_attention_as_its_big_sibling(
    encoder, family, attention
):
    model, _, _ = load_model({"folder": MINI / encoder}, weights=False)
    assert type(model).__name__ == family
    assert attention in model.state_dict()
    stem = model.visual.conv1 if family in ("CLIP", "CoCa") else model.visual.trunk.patch_embed.proj
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in stem) == 4


@pytest.mark.parametrize("encoder", ENCODERS)
def test_captions_are_embedded_the_same_with_the_context_cut(encoder):
    model, _, tokenizer = load_model({"folder": MINI / encoder})
    tokens = tokenizer(["a dog", 'a photo of the number: "7"', "a red circle on a blue background"])
    with torch.inference_mode():
        whole = model.encode_text(tokens, normalize=False)
        assert torch.allclose(encode_text(model, tokens), whole, atol=1e-5)


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory):
    """A corpus of drawings and of characters in Pillow's own font."""
    font = ImageFont.load_default(36)
    rows = list(corpus.render_drawings(150, 0))
    rows += [{**r, "kind": "pictogram", "noun": f"thing {i}"} for i, r in enumerate(rows)]
    for kind, codes in (("digit", string.digits), ("letter", string.ascii_letters)):
        rows += [
            corpus.make_row(
                corpus.render_glyph(font, code), kind, code, True, f"font default:{code}"
            )
            for code in codes
        ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    write_parquet(pa.Table.from_pylist(rows), path, {})
    return path


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_family_pretrains_and_goes_on_where_it_was_killed(encoder, tiny_corpus, tmp_path):
    architecture = tmp_path / "open_clip_config.json"
    config = json.loads((MINI / encoder / "open_clip_config.json").read_text())
    config["foretune"]["pretraining"] |= {"steps": 6, "batch_size": 64, "warmup": 1}
    architecture.write_text(json.dumps(config))
    histories = []
    for folder, kill_at in ((tmp_path / "whole", None), (tmp_path / "killed", 3)):
        folder.mkdir()
        build_vocabulary(tiny_corpus, architecture, folder)
        save = pretraining.save_checkpoint

        def save_and_die(state, path, made_from, save=save):
            save(state, path, made_from)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretraining, "SAVE_EVERY", 3)
            if kill_at:
                patch.setattr(pretraining, "save_checkpoint", save_and_die)
                with pytest.raises(KeyboardInterrupt):
                    pretrain(folder, tiny_corpus, folder / "state.pt", 0, log=str)
                patch.setattr(pretraining, "save_checkpoint", save)
            histories.append(pretrain(folder, tiny_corpus, folder / "state.pt", 0, log=str))
    whole, killed = ([row["loss"] for row in history] for history in histories)
    assert len(whole) == 2 and whole == killed
    assert whole[1] < whole[0]  # it learns, with six steps
    load_model({"folder": tmp_path / "whole"})


@pytest.mark.parametrize("bundle", [path.stem for path in list_tasks(MINI)])
def test_no_test_image_was_in_the_pretraining_corpus(bundle):
    assert find_leaks(MINI / "corpus_index.parquet", MINI / f"{bundle}.parquet") == []


def test_a_leak_is_found_by_its_pixels_and_by_its_name(tmp_path):
    test = pq.read_table(MINI / "emoji.parquet").filter(pc.field("split") == "test")
    rows = [
        {"image": test["image"][0].as_py(), "origin": "another set:another name"},
        {"image": encode_png(np.zeros((40, 40, 3), np.uint8)),
         "origin": test["origin"][1].as_py()},
    ]  # fmt: skip
    write_parquet(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet", {})
    index_corpus(tmp_path / "corpus.parquet", tmp_path / "index.parquet")
    leaks = find_leaks(tmp_path / "index.parquet", MINI / "emoji.parquet")
    assert len(leaks) == 2
    assert any("pixels" in leak for leak in leaks)
    assert any(rows[1]["origin"] in leak for leak in leaks)


def test_the_corpus_index_is_of_the_sets_that_the_package_list_names():
    """And of none that a task is made from; the tasks' sets are installed apart."""
    dependencies = json.loads((MINI / "package.json").read_text())["dependencies"]
    keys = pq.read_table(MINI / "corpus_index.parquet").filter(pc.field("kind") == "origin")["key"]
    sets = {key.split(":")[0] for key in keys.to_pylist()}
    icons = {name for name in sets if not name.startswith("font ")}
    assert icons == {name.split("/")[1] for name in dependencies if "@iconify" in name}
    assert len(sets - icons) == sum("@fontsource" in name for name in dependencies)
    for kept_out in ("openmoji", "emojione-v1", "streamline-emojis", "fxemoji", "flag", "cif"):
        assert kept_out not in icons


def test_the_bundle_is_of_the_size_that_was_promised():
    total = sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file())
    assert total < 40_000_000
    for path in list_tasks(MINI):
        assert path.stat().st_size < 1_500_000
        source = read_parquet_source(path)
        assert source.licence and source.source and "{}" in source.caption
        assert {label for _, _, label in source.rows["test"].read()} == set(
            range(len(source.classes))
        )


def test_a_drawn_task_is_rebuilt_to_the_byte(tmp_path):
    bundles_drawn.bundle_orientation(None, tmp_path / "orientation.parquet", 0)
    shutil.copy(MINI / "digits.parquet", tmp_path)
    (tmp_path / "digits.parquet").write_bytes(b"another")
    lines = compare_data(tmp_path, MINI).splitlines()
    assert "orientation.parquet: the same to the byte" in lines
    assert "digits.parquet: DIFFERENT" in lines


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_suite_spans_what_an_encoder_can_and_cannot_do(encoder, tmp_path):
    """The bars of the suite: by spread of zero-shot accuracy and of iimm, and nothing else."""
    tasks = [path for path in list_tasks(MINI) if not path.stem.endswith("_artists")]
    accuracies = zero_shot_accuracies(MINI / encoder, tasks)
    chances = {path.stem: 1 / len(read_parquet_source(path).classes) for path in tasks}
    assert any(accuracies[name] < 1.5 * chances[name] for name in chances)
    assert max(accuracies.values()) > 0.8
    assert sum(0.25 <= accuracy <= 0.75 for accuracy in accuracies.values()) >= 3
    iimm = []
    for path in tasks:
        folder = prepared(path.stem, tmp_path, {"folder": str(MINI / encoder)})
        embeddings = tmp_path / "embeddings"
        images, texts = read_task_embeddings(embeddings, "train", read_manifest(folder)["digest"])
        labels = images.columns["label"]
        iimm.append(compute_measures(images.vectors, texts.vectors, labels)["iimm"])
    assert max(iimm) - min(iimm) >= 0.3


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_zero_shot_accuracy_is_above_twice_chance(name, tmp_path):
    import pandas as pd

    folder = prepared(name, tmp_path)
    images, texts = (tmp_path / f"embeddings/{name}.parquet" for name in ("test", "text"))
    kept = [tmp_path / f"{name}.parquet" for name in ("rows", "classes", "confusions")]
    evaluate_zero_shot("clip_mini", [folder], [images], [texts], tmp_path, *kept)
    row = pd.read_parquet(tmp_path / "rows.parquet").iloc[0]
    assert row.n == len(read_split(folder, "test")) and row.chance == 0.1
    assert row.accuracy > 2 * row.chance


@pytest.mark.slow
def test_full_fine_tuning_reaches_95_percent_on_mnist(tmp_path):
    import pandas as pd
    import yaml

    from foretune.core.config import check_config
    from foretune.core.grid import expand_grid
    from foretune.evaluation.finetuned import evaluate_model
    from foretune.training.finetune import finetune
    from foretune.training.trials import JobSpec, select_trial

    folder, text = prepared("mnist", tmp_path), tmp_path / "embeddings/text.parquet"
    (tmp_path / "base").mkdir()
    (tmp_path / "base/mnist").symlink_to(tmp_path / "embeddings")
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    recipe = check_config(study)["methods"]["full"]
    run = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
    job = JobSpec(run, recipe, expand_grid(recipe), 0, folder, tmp_path / "trials")
    finetune(job, CLIP_MINI, text)
    select_trial([tmp_path / "trials/best.json"], tmp_path / "best.json")
    evaluate_model(
        [tmp_path / "best.json"], CLIP_MINI, [], [folder], [text], tmp_path / "base",
        tmp_path / "prepared", tmp_path, "c", tmp_path / "r.parquet", tmp_path / "c.parquet",
        tmp_path / "pairs.parquet", tmp_path / "m.parquet",
    )  # fmt: skip
    assert pd.read_parquet(tmp_path / "r.parquet").accuracy[0] >= 0.95


def test_the_bundled_study_is_of_the_bundled_encoders_tasks_and_recipes(monkeypatch):
    """Where it is not, the default study was changed: run it, and `suite.py study` after it."""
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config.yaml").read_text())
    path = MINI / "study/analysis/tasks.parquet"
    assert path.stat().st_size < 100_000
    tasks, facts = read_study_results(path.parent)
    assert facts["sources"] == study_sources(config)
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


def test_other_results_are_not_bundled(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config.yaml").read_text())
    bundle_study(MINI / "study", config, tmp_path)
    tasks = "analysis/tasks.parquet"
    assert (tmp_path / tasks).read_bytes() == (MINI / "study" / tasks).read_bytes()
    del config["methods"]["lora"]
    with pytest.raises(ForetuneError, match=r"tasks\.parquet: its methods are .*lora.*; the conf"):
        bundle_study(MINI / "study", config, tmp_path)
