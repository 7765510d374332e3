"""The bundled encoder is a zero-shot model, and learns."""

import json

import pytest
from conftest import CLIP_MINI, ROOT

from foretune.datasets import prepare_dataset, read_split
from foretune.embed import embed_captions, embed_images
from foretune.evaluate import evaluate_zero_shot
from foretune.models import load_model


def prepared(name, folder):
    """The folder of a bundled dataset, embedded whole."""
    prepare_dataset(name, {"parquet": ROOT / f"resources/mini/{name}.parquet"}, folder / name, 0)
    embed_images(CLIP_MINI, folder / name, folder / "embeddings")
    embed_captions(CLIP_MINI, folder / name, None, folder / "embeddings/text.parquet")
    return folder / name


def test_the_encoder_is_small_and_loads_whole():
    folder = ROOT / "resources/mini/clip"
    assert (folder / "open_clip_model.safetensors").stat().st_size < 5_000_000
    model, _, tokenizer = load_model(CLIP_MINI)
    assert tokenizer.vocab_size == model.vocab_size
    assert tokenizer(["a photo of a dog"]).shape == (1, model.context_length)
    history = json.loads((folder / "pretraining.json").read_text())
    # Flattened: the last tenth of the steps won less than a twentieth of the whole descent.
    losses = [row["loss"] for row in history]
    assert losses[-1] > losses[-len(losses) // 10] - 0.05 * (losses[0] - losses[-1])


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_zero_shot_accuracy_is_above_twice_chance(name, tmp_path):
    import pandas as pd

    folder = prepared(name, tmp_path)
    evaluate_zero_shot("clip_mini", folder, tmp_path / "embeddings", tmp_path / "rows.parquet")
    row = pd.read_parquet(tmp_path / "rows.parquet").iloc[0]
    assert row.n == len(read_split(folder, "test")) and row.chance == 0.1
    assert row.accuracy > 2 * row.chance


@pytest.mark.slow
def test_full_fine_tuning_reaches_95_percent_on_mnist(tmp_path):
    import pandas as pd
    import yaml

    from foretune.config import expand_grid
    from foretune.evaluate_model import evaluate_model
    from foretune.finetune import finetune
    from foretune.trials import select_trial

    folder, text = prepared("mnist", tmp_path), tmp_path / "embeddings/text.parquet"
    recipe = yaml.safe_load((ROOT / "config.yaml").read_text())["methods"]["full"]
    trials = expand_grid(recipe)
    run = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
    finetune(run, CLIP_MINI, folder, text, recipe, trials, 0, tmp_path / "trials")
    select_trial([tmp_path / "trials/best.json"], tmp_path / "best.json")
    evaluate_model(
        tmp_path / "best.json", CLIP_MINI, [folder], [text], tmp_path, "c", tmp_path / "r.parquet"
    )
    assert pd.read_parquet(tmp_path / "r.parquet").accuracy[0] >= 0.95
