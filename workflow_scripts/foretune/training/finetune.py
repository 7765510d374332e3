"""Fine-tuning a dual encoder on a task, trial by trial.

The paper's recipe: cross-entropy over the scaled cosine logits of all class captions, the best
epoch by validation accuracy. The test split is never read here.

A job that is killed goes on at the last finished epoch with the numbers of an unbroken run:
batches and augmentation are drawn from (seed, epoch) alone. Trials that are done are kept by
their hyperparameters, so that a grid can grow without repeating them.
"""

import math
import time
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foretune.core.code_digest import code_digest
from foretune.core.errors import ForetuneError
from foretune.core.locks import exclusive_lock
from foretune.data.prepared import read_manifest, read_split
from foretune.encoders.cache import read_embeddings
from foretune.encoders.encode import DEVICE, encode_captions, encode_images
from foretune.encoders.image_cache import load_batch, prepare_images
from foretune.encoders.imports import restore_compiler
from foretune.encoders.loading import digest_weights, encode_text, load_model
from foretune.encoders.zero_shot import classification_logits, predict_classes
from foretune.training import distributed
from foretune.training.augment import augment
from foretune.training.checkpoint import JobState
from foretune.training.methods import (
    TOWERS,
    TrainableModel,
    describe_trained_weights,
    make_trainable,
)
from foretune.training.optim import compute_learning_rate, make_optimizer
from foretune.training.trials import (
    get_trial_columns,
    get_trial_key,
    has_diverged,
    is_better,
    list_rungs,
    select_survivors,
    write_results,
)


def set_train_mode(model: nn.Module) -> None:
    """Training mode, but for batch norms: their running statistics are no trained weights."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class FineTuningJob:
    """One (model, method, dataset): prepared images, captions, and the state on disk."""

    def __init__(
        self, run, model_spec, dataset, text_cache, recipe, seed, output, prepared=None, log=print
    ):
        self.run, self.recipe, self.seed, self.output, self.log = run, recipe, seed, output, log
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        manifest = read_manifest(dataset)
        weights = digest_weights(self.model)
        texts = read_embeddings(text_cache, dataset=manifest["digest"], weights=weights)
        self.captions = list(texts.columns["caption"])
        self.tokens = self.tokenizer(self.captions).to(DEVICE)
        self.images, self.labels = {}, {}
        for split in ("train", "val"):
            self.images[split] = prepare_images(dataset, split, self.preprocess, prepared, log)
            labels = read_split(dataset, split, ["label"])["label"].to_numpy()
            self.labels[split] = torch.tensor(labels).long()
        self.base = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.frozen = self.encode_frozen()
        # What the numbers depend on, beside the trial. A search tries trials in another order.
        made_from = {
            "weights": weights, "dataset": manifest["digest"], "captions": self.captions,
            "recipe": {k: v for k, v in recipe.items() if k != "search"},
            "seed": seed, "method": run["method"], "code": code_digest("training.finetune"),
        }  # fmt: skip
        self.state = JobState(output / "state", made_from, log, writes=not distributed.rank())
        if len(self.labels["val"]) < distributed.world_size():
            raise ForetuneError(f"{dataset}: fewer validation images than GPUs; set gpus")
        if recipe["compile"]:
            restore_compiler()
        self.batch_loss = torch.compile(self.loss) if recipe["compile"] else self.loss
        self.step_loss = self.batch_loss

    def encode_frozen(self) -> dict[str, Tensor]:
        """Embeddings by a tower that the recipe leaves frozen: it runs once, not once a step."""
        frozen, trained = {}, TOWERS[self.recipe["towers"]]
        if "text" not in trained:
            frozen["text"] = encode_captions(self.model, self.tokenizer, self.captions).to(DEVICE)
        if "image" not in trained:
            augmented = self.recipe["augmentation"] != {"crop": 1, "flip": False}
            for split in ("val",) if augmented else ("train", "val"):
                vectors = encode_images(self.model, self.preprocess, self.images[split])
                frozen[split] = vectors.to(DEVICE)
        return frozen

    def train(self, trials: list[dict]) -> None:
        """Run the trials that the state on disk does not have, then write the job's files."""
        state, keys = self.state, [get_trial_key(trial) for trial in trials]
        if state.best and state.best["key"] not in keys:
            state.clear()  # the only weights kept are of a trial that the grid has lost
        left = dict(zip(keys, trials, strict=True))
        halved: set[str] = set()
        for epochs in list_rungs(self.recipe):
            for trial in left.values():
                self.train_trial(trial, epochs, trials)
            if epochs < self.recipe["epochs"]:
                kept = select_survivors(
                    {key: state.rows[key][:epochs] for key in left}, self.recipe
                )
                halved |= left.keys() - kept
                left = {key: trial for key, trial in left.items() if key in kept}
        for key in halved:
            state.running.pop(key, None)
            state.rows[key][-1]["ended"] = "halved"
        state.write()
        rows = [
            {**row, "trial": trial["trial"]}
            for key, trial in zip(keys, trials, strict=True)
            for row in state.rows[key]
        ]
        best = None
        if state.best:
            trial = trials[keys.index(state.best["key"])]
            best = {**state.best["row"], "trial": trial["trial"]}
        if not distributed.rank():
            write_results(self.output, self.run, rows, best, best and state.best_file)

    def train_trial(self, trial: dict, epochs: int, trials: list[dict]) -> None:
        """Train one trial to the given epoch, saving the state after each."""
        key, state, recipe = get_trial_key(trial), self.state, self.recipe
        rows = state.rows.get(key, [])
        if rows and rows[-1]["ended"] == "halved":
            rows[-1]["ended"] = None  # by an earlier run, perhaps of another grid
        if len(rows) >= epochs or (rows and rows[-1]["ended"]):
            return
        self.model.load_state_dict(self.base)
        torch.manual_seed(self.seed)  # low-rank updates start from random numbers
        attached = make_trainable(self.model, self.run["method"], recipe | trial)
        trained = attached.trained
        optimizer = make_optimizer(recipe, trial, list(trained.values()))
        self.step_loss = distributed.average_gradients(self.model, self.batch_loss)
        try:
            going_on = state.resume(key)
            rows = state.rows[key]
            if going_on:
                with torch.no_grad():
                    for name, parameter in trained.items():
                        parameter.copy_(going_on["weights"][name])
                optimizer.load_state_dict(going_on["optimizer"])
            while len(rows) < epochs and not (rows and rows[-1]["ended"]):
                row = self.train_epoch(trial, len(rows), optimizer, attached)
                row["ended"] = self.reason_to_end(rows, row, trained)
                rows.append(row)
                previous = state.best and state.best["row"]
                won = row["ended"] != "diverged" and is_better(row, previous)
                over = row["ended"] or len(rows) == recipe["epochs"]
                weights = {name: p.detach().cpu().clone() for name, p in trained.items()}
                training = {"weights": weights, "optimizer": optimizer.state_dict()}
                described = describe_trained_weights(self.run["method"], recipe | trial)
                state.save(key, None if over else training, weights if won else None, described)
                self.report_progress(trial, row, trials)
        except torch.OutOfMemoryError:
            raise ForetuneError(self.advise_batch_size()) from None
        finally:
            attached.merge()

    def reason_to_end(self, rows: list[dict], row: dict, trained: dict) -> str | None:
        if has_diverged(row, trained.values()):
            return "diverged"
        best = max([*rows, row], key=lambda each: (each["val_accuracy"], -each["epoch"]))
        if row["epoch"] - best["epoch"] >= self.recipe.get("patience", math.inf):
            return "early"
        return None

    def report_progress(self, trial: dict, row: dict, trials: list[dict]) -> None:
        done = [len(self.state.rows.get(get_trial_key(other), [])) for other in trials]
        left = (self.recipe["epochs"] * len(trials) - sum(done)) * len(self.labels["train"])
        number = f"trial {trials.index(trial) + 1}/{len(trials)}"
        self.log(
            f"{self.run['dataset']} {self.run['method']}  {number}  "
            f"epoch {row['epoch']}/{self.recipe['epochs']}  loss {row['loss']:.3f}  "
            f"validation {row['val_accuracy']:.3f}  {row['images_per_second']:.0f} images/s  "
            f"{left / row['images_per_second']:.0f} s left"
        )
        if row["ended"] == "diverged":
            point = ", ".join(f"{name} {value}" for name, value in trial.items() if name != "trial")
            self.log(f"{number} ({point}): loss or weights are not finite; ended, never selected")

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Mean cross-entropy of a batch; rows: where in the training split its images are."""
        device, precision = images.device.type, self.recipe["precision"]
        half = precision == "bf16" or (precision == "auto" and device == "cuda")
        with torch.autocast(device, torch.bfloat16, enabled=half), parametrize.cached():
            if "train" in self.frozen:
                vectors = self.frozen["train"][rows]
            else:
                vectors = self.model.encode_image(images, normalize=False)
            texts = self.frozen.get("text")
            texts = encode_text(self.model, self.tokens) if texts is None else texts
            logits = classification_logits(self.model, vectors, texts)
        smoothing = self.recipe["label_smoothing"]
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def train_epoch(self, trial: dict, epoch: int, optimizer, attached: TrainableModel) -> dict:
        """One pass over the training images; the epoch's row."""
        recipe, labels = self.recipe, self.labels["train"]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(labels))
        steps = math.ceil(len(order) / recipe["batch_size"])
        generator = torch.Generator().manual_seed(self.seed * 10_000 + epoch)
        torch.manual_seed(self.seed * 10_000 + epoch)  # dropout, where a tower has it
        set_train_mode(self.model)
        attached.restore()
        started, losses = time.monotonic(), torch.zeros((), device=DEVICE)
        size = recipe["batch_size"]
        for nth, batch in enumerate(np.array_split(order, range(size, len(order), size))):
            step = epoch * steps + nth
            rate = compute_learning_rate(recipe, trial["learning_rate"], step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            mine, draws = (
                distributed.rank_indices(batch),
                torch.rand(4, len(batch), generator=generator),
            )
            images = self.preprocess.normalize(
                load_batch(self.images["train"], batch[mine], DEVICE)
            )
            images = augment(images, recipe["augmentation"], draws[:, mine])
            rows = torch.from_numpy(batch[mine])
            loss = self.step_loss(images, labels[rows].to(DEVICE), rows) * distributed.loss_weight(
                batch
            )
            optimizer.zero_grad()
            loss.backward()
            if "clip_norm" in recipe:
                nn.utils.clip_grad_norm_(attached.trained.values(), recipe["clip_norm"])
            optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=math.log(100))  # as in CLIP's training
            losses += loss.detach() * len(batch)  # not .item(): a GPU would wait at every step
        mean = distributed.all_reduce_sum(losses).item() / distributed.world_size() / len(labels)
        seconds = time.monotonic() - started
        attached.restore()
        return {
            **get_trial_columns(trial),
            "epoch": epoch + 1,
            "loss": mean,
            "val_accuracy": self.validate(),
            "learning_rate": rate,
            "images_per_second": len(labels) / seconds,
        }

    @torch.inference_mode()
    def validate(self) -> float:
        """Accuracy on the validation split."""
        self.model.eval()
        images, texts = self.frozen.get("val"), self.frozen.get("text")
        labels, mine = (
            self.labels["val"],
            slice(distributed.rank(), None, distributed.world_size()),
        )
        with parametrize.cached():
            if images is None:
                images = encode_images(self.model, self.preprocess, self.images["val"][mine])
            else:
                images = images[mine]
            if texts is None:
                texts = encode_captions(self.model, self.tokenizer, self.captions)
        right = predict_classes(images.cpu(), texts.cpu()) == labels[mine]
        return distributed.all_reduce_sum(right.double().sum().to(DEVICE)).item() / len(labels)

    def advise_batch_size(self) -> str:
        """After a GPU ran out of memory: the largest halving of the batch that does fit."""
        size = self.recipe["batch_size"]
        where = f"methods.{self.run['method']}.batch_size: {size} images"
        for smaller in (size >> shift for shift in range(1, size.bit_length())):
            rows = torch.zeros(math.ceil(smaller / distributed.world_size()), dtype=torch.long)
            try:
                torch.cuda.empty_cache()
                images = self.preprocess.normalize(
                    load_batch(self.images["train"], rows.numpy(), DEVICE)
                )
                self.loss(images, rows.to(DEVICE), rows).backward()
                return f"{where} do not fit the GPU's memory, {smaller} do: set it to {smaller}"
            except torch.OutOfMemoryError:
                continue
        return f"{where} do not fit the GPU's memory, nor does a single one: take a smaller model"


def finetune(
    run, model_spec, dataset, text_cache, recipe, trials, seed, output, prepared=None, log=print
) -> None:
    """Run the trials of one (model, method, dataset) and write `output`'s three files.

    run: model, method and dataset by name; recipe: the method's entry of the config, without its
    lists; trials: points of its grid; prepared: where prepared images are kept (see images.py).
    Raises ForetuneError where all trials diverged or a GPU has too little memory.
    """
    with exclusive_lock(output) if not distributed.rank() else nullcontext():
        with distributed.main_process_first():
            job = FineTuningJob(
                run, model_spec, dataset, text_cache, recipe, seed, output, prepared, log
            )
        job.train(trials)
