"""Tests of loading a user's own models: files that cannot be read, guesses, local text towers."""

import argparse
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders import weights_file
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import digest_weights, load_model, load_model_folder
from real_size import make_tokenizer

TINY = "a-tiny-clip"
TOWER = {"width": 32, "layers": 1}
TINY_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 16, **TOWER},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "heads": 2, **TOWER},
}


@pytest.fixture(autouse=True)
def registered(tmp_path):
    """Register TINY and TINY-wide as open_clip's architectures; no tag differs for them."""
    (tmp_path / "configs").mkdir()
    wide = {**TINY_CONFIG, "text_cfg": {**TINY_CONFIG["text_cfg"], "width": 64}}
    for name, config in ((TINY, TINY_CONFIG), (f"{TINY}-wide", wide)):
        (tmp_path / f"configs/{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    yield
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path / "configs")
    open_clip.factory._rescan_model_configs()


@pytest.fixture
def weights() -> dict:
    torch.manual_seed(0)
    return open_clip.create_model(TINY, load_weights=False).state_dict()


def load_file_of(path, **keys):
    return load_model({"architecture": TINY, "pretrained": str(path), **keys})


def test_load_model_reads_a_training_checkpoint_of_open_clip(weights, tmp_path):
    """NumPy's numbers in the optimizer, and arguments, are no reason to refuse the tensors."""
    torch.save(weights, tmp_path / "bare.pt")
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    optimizer = {"param_groups": [{"lr": np.float64(1e-3), "betas": np.ones(2)}]}
    torch.save(
        {"epoch": 1, "name": "mine", "state_dict": wrapped, "optimizer": optimizer,
         "args": argparse.Namespace(lr=1e-3)},
        tmp_path / "epoch_1.pt",
    )  # fmt: skip
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    digests = {
        digest_weights(load_file_of(tmp_path / f"{name}.pt").model)
        for name in ("bare", "epoch_1", "old")
    }
    assert len(digests) == 1


class RunsCode:
    def __reduce__(self):
        return print, ("this code must not run",)


BROKEN = {
    "html.pt": (b"<!doctype html>", "is a web page, not weights"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\nsize 3", "a pointer of Git LFS"),
    "empty.pt": (b"", "cut short"),  # EOFError
    "junk.pt": (b"\x80\x02junk", "cut short"),  # struct.error
    "empty.safetensors": (b"", "cut short"),
    "empty.npz": (b"", "cut short"),
    "list.pt": ([1], "cut short"),
    "none.pt": ({}, "cut short"),
    "code.pt": ({"state_dict": RunsCode()}, r"may run code \(\S*print\); on the machine that made"),
    "half.pt": (0.5, "cut short"),
    "old_half.pt": (0.5, "cut short"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_load_model_says_in_one_line_what_is_wrong_with_a_file(name, weights, tmp_path, capsys):
    content, message = BROKEN[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, float):
        torch.save(weights, path, _use_new_zipfile_serialization="old" not in name)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * content)])
    else:
        torch.save(content, path)
    with pytest.raises(ForetuneError, match=rf"{name}: .*{message}") as caught:
        load_file_of(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert "must not run" not in capsys.readouterr().out


def test_load_model_names_weights_of_another_architecture(weights, tmp_path):
    torch.save(weights, tmp_path / "tiny.pt")
    spec = {"architecture": f"{TINY}-wide", "pretrained": str(tmp_path / "tiny.pt")}
    with pytest.raises(ForetuneError, match=r"tiny\.pt: not the weights of this architecture: "):
        load_model(spec)
    weights.pop("logit_scale")
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(ForetuneError, match=r"not the weights .* Missing key.*logit_scale"):
        load_file_of(tmp_path / "part.pt")


def test_a_file_whose_activation_would_be_guessed_is_refused(tmp_path, monkeypatch):
    """open_clip has 14 architectures in two versions, with GELU and with QuickGELU."""
    file = tmp_path / "w.safetensors"
    file.touch()
    spec = {"architecture": "ViT-B-32", "pretrained": str(file)}
    with pytest.raises(ForetuneError, match=r"ViT-B-32 was trained.*: quick_gelu: true .* false$"):
        load_model(spec)
    for more in ({"quick_gelu": True}, {"quick_gelu": False}):
        weights_file.refuse_guesses({**spec, **more})
    weights_file.refuse_guesses({**spec, "architecture": "ViT-B-32-quickgelu"})
    contradiction = {**spec, "architecture": "ViT-B-32-quickgelu", "quick_gelu": False}
    with pytest.raises(ForetuneError, match="quick_gelu: is false, but ViT-B-32-quickgelu has it"):
        load_model(contradiction)


def test_quick_gelu_and_preprocess_reach_the_model_and_its_digest(weights, tmp_path):
    torch.save(weights, tmp_path / "w.pt")
    plain = load_file_of(tmp_path / "w.pt", quick_gelu=False)
    given = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    quick = load_file_of(tmp_path / "w.pt", quick_gelu=True, preprocess=given)
    assert digest_weights(plain.model) != digest_weights(quick.model)
    assert repr(plain.preprocess.config) != repr(quick.preprocess.config)
    images = torch.full((1, 3, 32, 32), 51, dtype=torch.uint8)
    assert torch.allclose(quick.preprocess.normalize(images), torch.tensor(0.2))
    vectors = [m.model.encode_image(torch.ones(1, 3, 32, 32)) for m in (plain, quick)]
    assert not torch.allclose(*vectors, atol=1e-4)


def test_a_file_whose_preprocessing_would_be_guessed_is_refused(tmp_path):
    spec = {"architecture": "MobileCLIP-S1", "pretrained": str(tmp_path / "w.pt")}
    with pytest.raises(ForetuneError) as caught:
        weights_file.refuse_guesses(spec)
    assert "preprocess: {mean: [0.0, 0.0, 0.0], std: [1.0, 1.0, 1.0], " in str(caught.value)
    assert "interpolation: bilinear} (as datacompdr)" in str(caught.value)
    partly = {**spec, "preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    with pytest.raises(ForetuneError, match=r"entry: preprocess: \{interpolation: bicubic\}"):
        weights_file.refuse_guesses(partly)
    partly["preprocess"]["interpolation"] = "bilinear"
    weights_file.refuse_guesses(partly)


def test_every_architecture_with_differing_tags_is_known():
    """The numbers of open_clip 3.3; a new version may have more."""
    twins = other = 0
    for name in open_clip.list_models():
        twins += open_clip.get_model_config(f"{name}-quickgelu") is not None
        known = weights_file.list_tag_preprocessing(name)
        other += any(facts != known["CLIP"] for facts in known.values())
    assert twins >= 14 and other >= 54


def copy_model(tmp_path):
    return shutil.copytree(ROOT / CLIP_MINI["folder"], tmp_path / "model")


def test_load_model_takes_a_folder_with_a_bin_file(tmp_path):
    folder = copy_model(tmp_path)
    safe = folder / "open_clip_model.safetensors"
    torch.save(load_file(safe), folder / "open_clip_pytorch_model.bin")
    before = digest_weights(load_model({"folder": folder}).model)
    safe.unlink()
    assert digest_weights(load_model({"folder": folder}).model) == before
    (folder / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ForetuneError, match=r"model: has no weights; one of these is needed"):
        load_model({"folder": folder})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"open_clip_config\.json: cannot be read"),
        ("{}", "needs model_cfg with text_cfg and vision_cfg"),
        ("[]", "needs model_cfg with text_cfg and vision_cfg"),
    ],
)
def test_load_model_says_what_is_wrong_with_a_config(text, message, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(ForetuneError, match=message):
        load_model({"folder": tmp_path})


def write_tower_config(folder, **text) -> None:
    """Write the config of a model whose text tower is one of Hugging Face's."""
    text_config = {
        "hf_model_name": "me/tower", "hf_tokenizer_name": "me/tower", "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler", **text,
    }  # fmt: skip
    config = {**TINY_CONFIG, "text_cfg": text_config}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


def test_load_model_builds_a_text_tower_from_the_models_folder(tmp_path):
    write_tower_config(tmp_path)
    with pytest.raises(ForetuneError, match=r"tower me/tower is neither here.*hf download"):
        load_model({"folder": tmp_path})
    tower = {
        "model_type": "xlm-roberta", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 80,
        "pad_token_id": 1,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))  # of a whole CLIP
    with pytest.raises(ForetuneError, match="me/tower is neither here"):
        load_model({"folder": tmp_path})
    (tmp_path / "config.json").write_text(json.dumps(tower))
    make_tokenizer(tmp_path)
    model, _ = load_model_folder(tmp_path, weights=False)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    loaded = load_model({"folder": tmp_path})
    assert loaded.model.encode_text(loaded.tokenizer(["a cat"])).shape == (1, 16)


@pytest.mark.parametrize("place", ["model_cfg", "tokenizer_kwargs"])
def test_load_model_runs_no_code_of_a_models_author(place, tmp_path):
    remote = {"trust_remote_code": True}
    write_tower_config(tmp_path, **(remote if place == "model_cfg" else {place: remote}))
    with pytest.raises(ForetuneError, match="trust_remote_code would run code of the model's auth"):
        load_model({"folder": tmp_path})


def test_load_model_says_nothing_of_weights_that_it_loads_itself(weights, tmp_path, caplog):
    torch.save(weights, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        load_file_of(tmp_path / "w.pt")
    assert caplog.messages == []
