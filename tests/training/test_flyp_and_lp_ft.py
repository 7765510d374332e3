"""Tests of FLYP's contrastive loss, and of LP-FT's classifier: its start, training and use."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from safetensors.torch import load_file, save_file

from checkout import CLIP_MINI
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file
from foretune.encoders.encode import encode_captions, encode_images
from foretune.encoders.loading import load_model
from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
from foretune.evaluation.on_embeddings import evaluate_zero_shot
from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
from foretune.training import distributed
from foretune.training.finetune import finetune
from foretune.training.methods import apply_trained_weights, describe_trained_weights
from foretune.training.trainer import Trainer
from foretune.training.trials import JobSpec
from recipes import RECIPE

PROBE = {"learning_rate": [10.0, 1e-3], "epochs": 5}
RECIPES = {"flyp": RECIPE, "lp_ft": {**RECIPE, "towers": "image", "probe": PROBE}}
TRIALS = [{"trial": 0, "learning_rate": 0.01, "weight_decay": 0.0}]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_job(method, task, output, trials=TRIALS, dataset="mnist", **changes):
    run = {"model": "clip_mini", "method": method, "dataset": dataset}
    return JobSpec(run, {**RECIPES[method], **changes}, trials, 0, task / "dataset", output)


def make_trainer(method, task, log=lambda line: None, **changes):
    job = make_job(method, task, task, **changes)
    return Trainer(job, CLIP_MINI, task / "embeddings/text.parquet", task / "prepared", log)


def tune(method, task, output, log=lambda line: None, **changes):
    job = make_job(method, task, output, **changes)
    finetune(job, CLIP_MINI, task / "embeddings/text.parquet", task / "prepared", log)
    return json.loads((output / "best.json").read_text())


def get_batch(trainer, size=12):
    rows = torch.arange(size)
    images = trainer.preprocess.normalize(torch.from_numpy(trainer.images["train"][:size].copy()))
    return images, trainer.labels["train"][:size], rows


def test_flyp_has_the_contrastive_loss_of_clips_pretraining(small_task):
    trainer = make_trainer("flyp", small_task)
    trainable, _ = trainer.start_trial(TRIALS[0])
    images, labels, rows = get_batch(trainer)
    assert len(labels.unique()) < len(labels)  # some images share their class and so their caption
    loss = trainer.loss(images, labels, rows)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainable.parameters.items()}
    model = trainer.model
    model.zero_grad()
    captions = [trainer.captions[label][0] for label in labels]
    vectors = (
        F.normalize(model.encode_image(images)),
        F.normalize(model.encode_text(trainer.tokenizer(captions))),
    )
    expected = ClipLoss()(*vectors, model.logit_scale.exp())
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in trainable.parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_flyp_trains_every_tensor_and_learns(small_task, tmp_path):
    best = tune("flyp", small_task, tmp_path)
    model, _, _ = load_model(CLIP_MINI)
    trained = load_file(best["trained_weights"])
    assert trained.keys() == dict(model.named_parameters()).keys()
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert epochs.loss.iloc[-1] < epochs.loss.iloc[0]


@pytest.mark.parametrize("size", [5, 2, 1])
def test_gather_rows_of_three_ranks_gives_the_whole_batchs_gradient(size, monkeypatch):
    """The ranks run one after the other; the sum over them is added up by hand."""
    whole = torch.randn(size, 3, dtype=torch.float64)
    weights = torch.randn(size, 3, dtype=torch.float64)

    def compute_loss(vectors):
        return (vectors * weights).sin().sum() + vectors.sum() ** 2

    gradients = []
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        rows = distributed.rank_indices(np.arange(size))
        local = whole[rows].clone().requires_grad_()
        own = torch.zeros_like(whole)
        if rank < size:  # a rank without a row of its own contributes none
            own[rows] = whole[rows]
        # Forward, the ranks' own rows sum to the batch; backward, three equal gradients are added.
        monkeypatch.setattr(
            distributed,
            "all_reduce_sum",
            lambda value, own=own: whole.clone() if value.equal(own) else 3 * value,
        )
        gathered = distributed.gather_rows(local, size)
        assert torch.equal(gathered, whole)
        compute_loss(gathered).backward()
        gradients.append(torch.zeros_like(whole).index_add(0, torch.from_numpy(rows), local.grad))
    expected = whole.clone().requires_grad_()
    compute_loss(expected).backward()
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), expected.grad)


def test_lp_ft_starts_from_the_best_probe_by_validation(small_task):
    lines = []
    trainer = make_trainer("lp_ft", small_task, lines.append)
    trainable, _ = trainer.start_trial(TRIALS[0])
    (line,) = [line for line in lines if "mnist probe of lp_ft: validation" in line]
    trainer.model.eval()
    assert line.endswith(f"{trainer.validate():.3f}")
    assert trainable.parameters.keys() >= {"task_head.weight", "task_head.bias"}
    # A probe that does not learn has the zero-shot model's accuracy.
    still = make_trainer("lp_ft", small_task, probe={"learning_rate": [1e-30], "epochs": 1})
    still.start_trial(TRIALS[0])
    zero_shot = make_trainer("flyp", small_task)
    assert still.validate() == zero_shot.validate()
    learned = make_trainer("lp_ft", small_task, probe={"learning_rate": [1.0], "epochs": 5})
    assert not torch.allclose(
        still.probe["task_head.weight"], learned.probe["task_head.weight"], atol=1e-5
    )


def test_lp_ft_trains_the_image_tower_and_the_head_by_cross_entropy(small_task, tmp_path):
    trainer = make_trainer("lp_ft", small_task)
    trainable, _ = trainer.start_trial(TRIALS[0])
    images, labels, rows = get_batch(trainer)
    vectors = F.normalize(trainer.model.encode_image(images))
    expected = F.cross_entropy(
        vectors @ trainer.probe["task_head.weight"].T + trainer.probe["task_head.bias"], labels
    )
    torch.testing.assert_close(trainer.loss(images, labels, rows), expected)
    trainable.merge()
    best = tune("lp_ft", small_task, tmp_path)
    trained = load_file(best["trained_weights"])
    model, preprocess, _ = load_model(CLIP_MINI)
    before = dict(model.named_parameters())
    visual = {name for name in before if name.startswith("visual.")}
    assert trained.keys() == visual | {"task_head.weight", "task_head.bias"}
    assert not any(torch.equal(trained[name], before[name]) for name in visual)
    assert not torch.equal(trained["task_head.weight"], trainer.probe["task_head.weight"])
    # The file holds what was validated.
    head = apply_trained_weights(model, best["trained_weights"])
    assert not hasattr(model, "task_head")
    vectors = F.normalize(encode_images(model, preprocess, trainer.images["val"]))
    predicted = (vectors @ head["weight"].T + head["bias"]).argmax(dim=1)
    assert (predicted == trainer.labels["val"]).double().mean().item() == best["val_accuracy"]


def test_lp_ft_says_so_if_every_probe_diverges(small_task):
    message = r"methods\.lp_ft\.probe\.learning_rate: every one diverges; lower it"
    with pytest.raises(ForetuneError, match=message):
        make_trainer("lp_ft", small_task, probe={"learning_rate": [1e39], "epochs": 1})


@pytest.mark.parametrize("method", RECIPES)
def test_an_interrupted_run_resumes_to_the_same_numbers(method, small_task, tmp_path):
    trials = [*TRIALS, {"trial": 1, "learning_rate": 0.001, "weight_decay": 0.0}]
    unbroken = tune(method, small_task, tmp_path / "unbroken", trials=trials)

    def interrupt(line):
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(method, small_task, tmp_path / "resumed", interrupt, trials=trials)
    lines = []
    resumed = tune(method, small_task, tmp_path / "resumed", lines.append, trials=trials)
    assert sum("epoch" in line for line in lines) == 3
    assert resumed["sha256"] == unbroken["sha256"] and resumed["epoch"] == unbroken["epoch"]


def evaluate(task, output, selections, wise_ft=()):
    """Return the rows of an evaluation on the small task's test and its shifted test."""
    output.mkdir(exist_ok=True)
    tables = [output / f"{name}.parquet" for name in ("rows", "classes", "confusions")]
    text = task / "embeddings/text.parquet"
    tests = [
        EvaluationTest(task / "dataset" / name, task / f"embeddings/{name}/test.parquet", text)
        for name in ("", "shifted/few")
    ]
    embeddings = output / "embeddings"
    if not embeddings.exists():
        embeddings.mkdir()
        (embeddings / "mnist").symlink_to(task / "embeddings")
    if selections:
        base = BaseModel(CLIP_MINI, embeddings, task / "prepared")
        outputs = FineTunedOutputs(output / "predictions", *tables, output / "drift.parquet")
        evaluate_model(selections, base, tests, outputs, "", wise_ft, log=lambda line: None)
    else:
        evaluate_zero_shot("clip_mini", tests, EvaluationOutputs(output / "predictions", *tables))
    return pd.read_parquet(output / "rows.parquet")


def test_lp_ft_predicts_its_own_task_by_the_head_and_others_by_captions(small_task, tmp_path):
    best = tune("lp_ft", small_task, tmp_path / "trained")
    tensors = load_file(best["trained_weights"])
    # The head's classes in another order, so that its predictions are not the captions'.
    tensors["task_head.weight"] = tensors["task_head.weight"].roll(1, dims=0).contiguous()
    path = tmp_path / "trained_weights.safetensors"
    save_file(
        tensors, path, describe_trained_weights("lp_ft", {"towers": "image", "head": [10, 128]})
    )
    selections = []
    for dataset in ("mnist", "other"):
        files = {"trained_weights": str(path), "sha256": digest_file(path)}
        selections.append(tmp_path / f"{dataset}.json")
        selections[-1].write_text(json.dumps({**best, "dataset": dataset, **files}))
    rows = evaluate(small_task, tmp_path / "tested", selections, wise_ft=[0.0, 0.5])
    rows = rows.set_index(["trained_on", "wise_ft", "split"]).accuracy
    zero_shot = evaluate(small_task, tmp_path / "zero", []).set_index("split").accuracy
    model, preprocess, tokenizer = load_model(CLIP_MINI)
    trainer = make_trainer("lp_ft", small_task)
    captions = F.normalize(encode_captions(model, tokenizer, trainer.captions))
    start = model.logit_scale.exp() * captions
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_trained_weights(model, path)
    tuned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = trainer.read_split_images(
        make_job("lp_ft", small_task, tmp_path), "test", small_task / "prepared", print
    )
    for coefficient in (0.0, 0.5, 1.0):
        model.load_state_dict({k: torch.lerp(base[k], tuned[k], coefficient) for k in base})
        vectors = F.normalize(encode_images(model, preprocess, images[0]))
        weight = torch.lerp(start, tensors["task_head.weight"], coefficient)
        by_head = (vectors @ weight.T + coefficient * tensors["task_head.bias"]).argmax(dim=1)
        by_captions = (vectors @ captions.T).argmax(dim=1)
        accuracies = [(p == images[1]).double().mean().item() for p in (by_head, by_captions)]
        assert [
            rows["mnist", coefficient, "test"],
            rows["other", coefficient, "test"],
        ] == accuracies
    for trained_on in ("mnist", "other"):
        for split in ("test", "few"):
            assert rows[trained_on, 0.0, split] == zero_shot[split]
    assert rows["mnist", 1.0, "test"] < rows["other", 1.0, "test"]
