"""Tests of the methods: what each trains by tower, in four families; its merge and its file."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.nn.utils import parametrize

from checkout import ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import encode_text, load_model
from foretune.encoders.zero_shot import classification_logits
from foretune.training.lora import LoraParametrization, add_dropout
from foretune.training.methods import (
    METHODS,
    apply_trained_weights,
    describe_trained_weights,
    make_trainable,
)
from foretune.training.towers import TOWERS, find_transformer_blocks, get_tower, split_qkv_rows
from foretune.training.trainable import get_method_settings

FAMILIES = ("clip", "siglip", "coca", "eva02")
SETTINGS = {
    "full": {}, "bitfit": {}, "attention": {},
    "lora": {"rank": 4, "alpha": 8, "projections": "qv"},
    "lora qkvo": {"rank": 4, "alpha": 8, "projections": "qkvo"},
    "clip_lora": {"rank": 2, "alpha": 1.4, "projections": "qkv", "dropout": 0.25},
    "flyp": {}, "lp_ft": {"towers": "image", "head": [3, 128]},
}  # fmt: skip
BLOCKS = 12  # per tower, at real size
# Slack for logits, which are cosines times up to 100: two orders of operations in float32, whose
# epsilon is 1e-7. Disturbed weights change them by more than ten times as much.
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}

# Tensors in each tower, worked out by hand from the architectures. A block of CLIP's has 12
# (two norms, in- and out-projection, two linear layers, each with a bias), of which 6 biases.
# EVA-02's image block has 21: two norms, q, k without a bias, v, an inner norm, the output
# projection, a gated MLP of three linear layers and an inner norm; 10 of them biases.
COUNTS = {
    # Besides the blocks: class and position embedding, projection, patches and two norms; in the
    # text tower position and token embedding, projection and a norm.
    "ViT-B-32": {
        "full": (12 * BLOCKS + 8, 12 * BLOCKS + 5), "bitfit": (6 * BLOCKS, 6 * BLOCKS),
        "attention": (BLOCKS, BLOCKS), "lora": (4 * BLOCKS, 4 * BLOCKS),
        "lora qkvo": (8 * BLOCKS, 8 * BLOCKS), "clip_lora": (6 * BLOCKS, 6 * BLOCKS),
        "flyp": (12 * BLOCKS + 8, 12 * BLOCKS + 5), "lp_ft": (12 * BLOCKS + 8, 0),
    },
    # In addition 11 of the pooling head (query, three projections, their bias, out-projection, two
    # norms), and a class token in the text tower.
    "coca_ViT-B-32": {
        "full": (12 * BLOCKS + 8 + 11, 12 * BLOCKS + 6), "bitfit": (6 * BLOCKS, 6 * BLOCKS),
        "attention": (BLOCKS, BLOCKS), "lora": (4 * BLOCKS, 4 * BLOCKS),
        "lora qkvo": (8 * BLOCKS, 8 * BLOCKS),
    },
    # Position embedding, patches with a bias, a norm, and 13 of the pooling head (latent, q, kv,
    # projection, norm, MLP); the text projection has a bias.
    "ViT-B-16-SigLIP": {
        "full": (12 * BLOCKS + 5 + 13, 12 * BLOCKS + 6), "bitfit": (6 * BLOCKS, 6 * BLOCKS),
        "attention": (BLOCKS, BLOCKS), "lora": (4 * BLOCKS, 4 * BLOCKS),
        "lora qkvo": (8 * BLOCKS, 8 * BLOCKS),
    },
    # Class token, position embedding, patches with a bias, a norm and a head with a bias. q, k and
    # v have a weight each.
    "EVA02-B-16": {
        "full": (21 * BLOCKS + 8, 12 * BLOCKS + 5), "bitfit": (10 * BLOCKS, 6 * BLOCKS),
        "attention": (3 * BLOCKS, BLOCKS), "lora": (4 * BLOCKS, 4 * BLOCKS),
        "lora qkvo": (8 * BLOCKS, 8 * BLOCKS), "clip_lora": (6 * BLOCKS, 6 * BLOCKS),
    },
}  # fmt: skip
# The first block's tensors of the image and of the text tower.
FIRST = {
    ("ViT-B-32", "attention"): (
        ["visual.transformer.resblocks.0.attn.in_proj_weight"],
        ["transformer.resblocks.0.attn.in_proj_weight"],
    ),
    ("ViT-B-32", "bitfit"): tuple(
        [f"{tower}transformer.resblocks.0.{name}" for name in (
            "attn.in_proj_bias", "attn.out_proj.bias", "ln_1.bias", "ln_2.bias", "mlp.c_fc.bias",
            "mlp.c_proj.bias")]
        for tower in ("visual.", "")
    ),
    ("coca_ViT-B-32", "attention"): (
        ["visual.transformer.resblocks.0.attn.in_proj_weight"],
        ["text.transformer.resblocks.0.attn.in_proj_weight"],
    ),
    ("ViT-B-16-SigLIP", "attention"): (
        ["visual.trunk.blocks.0.attn.qkv.weight"],
        ["text.transformer.resblocks.0.attn.in_proj_weight"],
    ),
    ("ViT-B-16-SigLIP", "lora"): (
        [f"visual.trunk.blocks.0.attn.qkv.lora.{n}"
         for n in ("q_lora_A", "q_lora_B", "v_lora_A", "v_lora_B")],
        [f"text.transformer.resblocks.0.attn.lora.{n}"
         for n in ("q_lora_A", "q_lora_B", "v_lora_A", "v_lora_B")],
    ),
    ("EVA02-B-16", "attention"): (
        [f"visual.trunk.blocks.0.attn.{part}_proj.weight" for part in "kqv"],
        ["text.transformer.resblocks.0.attn.in_proj_weight"],
    ),
    ("EVA02-B-16", "bitfit"): (
        [f"visual.trunk.blocks.0.{name}.bias" for name in (
            "attn.norm", "attn.proj", "attn.q_proj", "attn.v_proj", "mlp.fc1_g", "mlp.fc1_x",
            "mlp.fc2", "mlp.norm", "norm1", "norm2")],
        [f"text.transformer.resblocks.0.{name}" for name in (
            "attn.in_proj_bias", "attn.out_proj.bias", "ln_1.bias", "ln_2.bias", "mlp.c_fc.bias",
            "mlp.c_proj.bias")],
    ),
}  # fmt: skip


def make_settings(named: str, **more) -> tuple[str, dict]:
    return named.split()[0], {"towers": "both", **SETTINGS[named], **more}


def test_settings_cover_every_method():
    assert {named.split()[0] for named in SETTINGS} == set(METHODS)


@pytest.mark.parametrize("architecture", COUNTS)
def test_make_trainable_finds_the_tensors_of_each_tower_at_real_size(architecture):
    model = open_clip.create_model(architecture, load_weights=False)
    for named, expected in COUNTS[architecture].items():
        trainable = make_trainable(model, *make_settings(named))
        names = {tower: [n for n in trainable.parameters if get_tower(n) == tower]
                 for tower in ("image", "text", None)}  # fmt: skip
        assert (len(names["image"]), len(names["text"])) == expected, named
        scalars = {"logit_scale", "logit_bias"} & dict(model.named_parameters()).keys()
        head = {"task_head.weight", "task_head.bias"}
        others = {"full": scalars, "flyp": scalars, "lp_ft": head}
        assert set(names[None]) == others.get(named, set())
        unfrozen = [p for p in model.parameters() if p.requires_grad]
        assert {id(p) for p in unfrozen} == {id(p) for p in trainable.parameters.values()}
        if (architecture, named) in FIRST:
            for tower, first in zip(("image", "text"), FIRST[architecture, named], strict=True):
                assert sorted(n for n in names[tower] if "s.0." in n) == first
        trainable.merge()


def test_make_trainable_refuses_a_tower_without_blocks():
    model = open_clip.create_model("RN50", load_weights=False)  # its image tower is a ResNet
    with pytest.raises(ForetuneError, match=r"bitfit: finds nothing .* image tower .*bitfit\.mod"):
        make_trainable(model, *make_settings("bitfit"))
    assert make_trainable(model, *make_settings("bitfit", towers="text")).parameters


@pytest.fixture(params=FAMILIES)
def family(request):
    model, preprocess, tokenizer = load_model({"folder": ROOT / "resources/mini" / request.param})
    torch.manual_seed(0)
    pixels = preprocess.normalize(torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8))
    tokens = tokenizer(["a photo of a cat", "a drawing of a dog", "the letter q"])

    @torch.no_grad()  # with gradients, torch uses other kernels for trained parameters
    def logits():
        images = model.encode_image(pixels, normalize=False)
        return classification_logits(model, images, encode_text(model, tokens))

    return model, logits


def disturb(parameters: dict) -> dict:
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return {name: parameter.detach().clone().contiguous() for name, parameter in parameters.items()}


@pytest.mark.parametrize("named", SETTINGS)
def test_merge_keeps_the_logits_and_the_file_restores_them(family, named, tmp_path):
    model, logits = family
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method, settings = make_settings(named)
    before = logits()
    trainable = make_trainable(model, method, settings)
    trained_weights = disturb(trainable.parameters)
    # Three calls give the same result: no call changes the frozen weights.
    unmerged, again, third = logits(), logits(), logits()
    assert torch.equal(unmerged, again) and torch.equal(unmerged, third)
    assert not torch.allclose(unmerged, before, atol=1e-3)
    trainable.merge()
    assert model.state_dict().keys() == base.keys()
    torch.testing.assert_close(logits(), unmerged, **ROUNDING)
    whole = named in ("full", "bitfit", "attention", "flyp", "lp_ft")
    frozen = set(base) - set(trained_weights) if whole else {
        name for name in base if "attn" not in name
    }  # fmt: skip
    assert all(torch.equal(model.state_dict()[name], base[name]) for name in frozen)
    save_file(
        trained_weights,
        tmp_path / "trained_weights.safetensors",
        describe_trained_weights(method, settings),
    )
    merged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(base)
    head = apply_trained_weights(model, tmp_path / "trained_weights.safetensors")
    assert head.keys() == ({"weight", "bias"} if named == "lp_ft" else set())
    assert all(torch.equal(head[name], trained_weights[f"task_head.{name}"]) for name in head)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_lora_starts_at_zero_and_does_not_change_keys(family):
    model, logits = family
    before = logits()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = make_trainable(model, *make_settings("lora"))
    torch.testing.assert_close(logits(), before, **ROUNDING)
    disturb(trainable.parameters)
    trainable.merge()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, base[n])}
    assert changed and all("in_proj_weight" in n or "qkv" in n or "_proj" in n for n in changed)
    assert not any("k_proj" in n or "out_proj" in n for n in changed)
    for name in changed:
        if "in_proj_weight" in name or "qkv" in name:
            keys = slice(len(base[name]) // 3, 2 * len(base[name]) // 3)
            assert torch.equal(model.state_dict()[name][keys], base[name][keys])


def test_apply_trained_weights_refuses_a_file_of_another_model(tmp_path):
    clip, _, _ = load_model({"folder": ROOT / "resources/mini/clip"})
    eva, _, _ = load_model({"folder": ROOT / "resources/mini/eva02"})
    method, settings = make_settings("attention")
    parameters = make_trainable(clip, method, settings).parameters
    path: Path = tmp_path / "trained_weights.safetensors"
    save_file(
        {n: p.detach() for n, p in parameters.items()},
        path,
        describe_trained_weights(method, settings),
    )
    before = {name: tensor.clone() for name, tensor in eva.state_dict().items()}
    with pytest.raises(
        ForetuneError, match=r"trained_weights.safetensors: not trained on this model"
    ):
        apply_trained_weights(eva, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in eva.state_dict().items())


def test_describe_trained_weights_has_the_settings_of_the_method():
    _, settings = make_settings("lora")
    recipe = {**settings, "epochs": 3, "learning_rate": [1], "rank": [settings["rank"], 64]}
    trial = {"trial": 0, "learning_rate": 1, "rank": settings["rank"]}
    described = describe_trained_weights("lora", get_method_settings(recipe, trial))
    assert json.loads(described["foretune"]) == {"method": "lora", **settings}


@torch.no_grad()
def test_dropout_of_lora_keeps_the_frozen_weights_whole_and_the_mean_of_the_updates(family):
    """In training mode, a unit's inputs are dropped; in evaluation mode, none are."""
    model, logits = family
    trainable = make_trainable(model, *make_settings("clip_lora", dropout=0.5))
    before = logits()
    model.train()
    # Without an update, dropout changes nothing: the model computes what torch's attention does.
    torch.testing.assert_close(logits(), before, **ROUNDING)
    disturb(trainable.parameters)
    model.eval()
    whole = logits()
    model.train()
    drawn = torch.stack([logits() for _ in range(50)])
    assert not torch.equal(drawn[0], drawn[1])
    mean_error = (drawn.mean(dim=0) - whole).abs().mean()
    assert mean_error < 0.5 * (drawn - whole).abs().mean()
    trainable.merge()
    torch.testing.assert_close(logits(), whole, **ROUNDING)


@pytest.mark.parametrize("kind", ["batch_first", "length_first", "bool_mask", "linear"])
def test_dropout_of_lora_equals_that_of_separate_updates(kind):
    """y = W x + alpha / rank * B A dropout(x), with a mask of its own for each of q, k and v."""
    torch.manual_seed(0)
    if kind == "linear":
        owner, name = torch.nn.Linear(6, 18), "weight"
        rows = split_qkv_rows(owner.weight)
    else:
        owner = torch.nn.MultiheadAttention(6, 2, batch_first=kind != "length_first")
        name, rows = "in_proj_weight", split_qkv_rows(owner.in_proj_weight)
    update = LoraParametrization(getattr(owner, name), rows, 2, 3.0)
    for parameter in update.parameters():
        torch.nn.init.normal_(parameter)
    inputs = torch.randn(3, 4, 6)
    W = getattr(owner, name).detach().clone()
    parametrize.register_parametrization(owner, name, update)
    remove = add_dropout(owner, update, 0.5)
    owner.train()
    torch.manual_seed(1)
    masks = [F.dropout(torch.ones_like(inputs), 0.5) for _ in rows]
    projected = [
        inputs @ W[part_rows].T
        + 1.5 * (inputs * mask) @ getattr(update, f"{part}_lora_A").T
        @ getattr(update, f"{part}_lora_B").T
        for (part, part_rows), mask in zip(rows.items(), masks, strict=True)
    ]  # fmt: skip
    torch.manual_seed(1)
    if kind == "linear":
        torch.testing.assert_close(owner(inputs), torch.cat(projected, dim=2) + owner.bias)
    else:
        length = 3 if kind == "length_first" else 4
        causal = torch.full((length, length), -torch.inf).triu(1)
        given = causal < 0 if kind == "bool_mask" else causal
        output = owner(inputs, inputs, inputs, need_weights=False, attn_mask=given)[0]
        # torch's own attention of the projected inputs, by an in-projection that is the identity.
        identity = torch.nn.MultiheadAttention(6, 2, batch_first=owner.batch_first)
        identity.out_proj.load_state_dict(owner.out_proj.state_dict())
        with torch.no_grad():
            identity.in_proj_weight.copy_(torch.eye(6).repeat(3, 1))
            identity.in_proj_bias.copy_(owner.in_proj_bias)
        expected = identity(*projected, need_weights=False, attn_mask=causal)[0]
        torch.testing.assert_close(output, expected)
    remove()
    owner.eval()
    if kind != "linear":
        assert "forward" not in vars(owner)


# The attention's weights in a block of each tower that `projections: qkvo` adapts, and the parts of
# each.
FUSED = {"attn": "qkv", "attn.out_proj": "o"}
ADAPTED = {
    "clip": {"image": FUSED, "text": FUSED},
    "coca": {"image": FUSED, "text": FUSED},
    "siglip": {"image": {"attn.qkv": "qkv", "attn.proj": "o"}, "text": FUSED},
    "eva02": {"image": {f"attn.{part}_proj": part for part in "qkv"} | {"attn.proj": "o"},
              "text": FUSED},
}  # fmt: skip


@pytest.mark.parametrize("towers", ["both", "image", "text"])
@pytest.mark.parametrize("name", FAMILIES)
def test_lora_of_all_projections_adapts_exactly_the_attention_of_its_towers(name, towers):
    model, _, _ = load_model({"folder": ROOT / "resources/mini" / name})
    blocks = {tower: sorted(find_transformer_blocks(model, tower)) for tower in TOWERS[towers]}
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    trainable = make_trainable(model, *make_settings("lora qkvo", towers=towers))
    expected = {
        f"{block}.{module}.lora.{part}_lora_{matrix}"
        for tower, names in blocks.items()
        for block in names
        for module, parts in ADAPTED[name][tower].items()
        for part in parts
        for matrix in "AB"
    }
    assert len(expected) > 0 and set(trainable.parameters) == expected
    disturb(trainable.parameters)
    trainable.merge()
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    of_attention = {
        f"{block}.{module}.weight".replace("attn.weight", "attn.in_proj_weight")
        for tower, names in blocks.items() for block in names for module in ADAPTED[name][tower]
    }  # fmt: skip
    assert changed == of_attention


@pytest.mark.parametrize("towers", ["both", "image", "text"])
def test_lora_trains_on_after_a_validation(family, towers):
    """A validation must leave no tensors of inference mode, which no step can write to."""
    model, logits = family
    trainable = make_trainable(model, *make_settings("lora qkvo", towers=towers))
    optimizer = torch.optim.SGD(trainable.parameters.values(), lr=1e-3)
    losses = []
    for _ in range(3):  # epochs, as the trainer's
        model.train()
        loss = torch.nn.functional.cross_entropy(logits.__wrapped__(), torch.arange(6) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.inference_mode():
            model.eval()
            logits()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    trainable.merge()
