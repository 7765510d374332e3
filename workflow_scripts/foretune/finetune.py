"""Fine-tuning a dual encoder on a task, trial by trial.

The paper's recipe: cross-entropy over the scaled cosine logits of all class captions, both
towers trained, the best epoch by validation accuracy. The test split is never read here.

A job that is killed goes on at the last finished epoch with the numbers of an unbroken run:
batches are drawn from (seed, epoch) alone, and the state file holds weights, optimizer and
the best epoch so far. Trials that are done are kept in it by their hyperparameters, so that
a grid can grow without repeating them.
"""

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foretune.checkpoint import load_checkpoint, save_checkpoint
from foretune.classify import classification_logits, predict
from foretune.config import code_digest
from foretune.datasets import read_manifest, read_split
from foretune.embed import DEVICE, load_images
from foretune.embeddings import read_embeddings
from foretune.files import ForetuneError, sole_writer
from foretune.models import digest_weights, encode_text, load_model
from foretune.recipe import learning_rate_at, make_optimizer
from foretune.trials import has_diverged, is_better, trial_key, write_results


def trainable(model: nn.Module, method: str) -> dict[str, nn.Parameter]:
    """The parameters that a method trains; all others are frozen."""
    if method != "full":
        raise ForetuneError(f"methods.{method}: no such fine-tuning method")
    # CoCa's text decoder writes captions; it takes no part in classification.
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith("text_decoder.")
    }


def set_training(model: nn.Module) -> None:
    """Training mode, but for batch norms: their running statistics are no trained weights."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class Job:
    """One (model, method, dataset): prepared images, captions, and the state on disk."""

    def __init__(self, run, model_spec, dataset, text_cache, recipe, seed, output, log=print):
        self.run, self.recipe, self.seed, self.output, self.log = run, recipe, seed, output, log
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        manifest = read_manifest(dataset)
        weights = digest_weights(self.model)
        texts = read_embeddings(text_cache, dataset=manifest["digest"], weights=weights)
        self.captions = list(texts.columns["caption"])
        tokens = self.tokenizer(self.captions)
        self.tokens = tokens.to(DEVICE)
        self.images, self.labels = {}, {}
        for split in ("train", "val"):
            rows = read_split(dataset, split)
            name = f"{dataset.name}, {split}"
            self.images[split] = load_images(rows, self.preprocess, name, log)
            self.labels[split] = torch.tensor(rows["label"].to_numpy()).long()
        self.base = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.state_path = output / "state.pt"
        # What the numbers depend on, beside the trial.
        self.made_from = {
            "weights": weights, "dataset": manifest["digest"], "captions": self.captions,
            "recipe": recipe, "seed": seed, "method": run["method"],
            "code": code_digest("finetune"),
        }  # fmt: skip

    def train(self, trials: list[dict]) -> None:
        """Run the trials that the state on disk does not have, then write the job's files."""
        state = load_checkpoint(self.state_path, self.made_from, self.log)
        state = state or {"epochs": {}, "best": None, "running": None}
        wanted = [trial_key(trial) for trial in trials]
        if state["best"] and state["best"]["key"] not in wanted:
            # The only weights kept are of a trial that the grid has lost.
            state |= {"epochs": {}, "best": None, "running": None}
        for trial in trials:
            done = len(state["epochs"].get(trial_key(trial), []))
            if done < self.recipe["epochs"]:
                self.train_trial(trial, state, trials)
        epochs = [
            {**row, "trial": trial["trial"]}
            for trial in trials
            for row in state["epochs"][trial_key(trial)]
        ]
        best = state["best"]
        if best:
            best["row"]["trial"] = trials[wanted.index(best["key"])]["trial"]
        weights = best["weights"] if best else {}
        write_results(self.output, self.run, epochs, best and best["row"], weights)

    def train_trial(self, trial: dict, state: dict, trials: list[dict]) -> None:
        """Train one trial to its last epoch, saving the state after each."""
        key, recipe, model = trial_key(trial), self.recipe, self.model
        model.load_state_dict(self.base)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        trained = trainable(model, self.run["method"])
        for parameter in trained.values():
            parameter.requires_grad_(True)
        optimizer = make_optimizer(recipe, trial, list(trained.values()))
        if state["running"] and state["running"]["key"] == key:
            model.load_state_dict(state["running"]["model"])
            optimizer.load_state_dict(state["running"]["optimizer"])
        else:
            state["epochs"][key] = []
        rows = state["epochs"][key]
        while len(rows) < recipe["epochs"]:
            row = self.train_epoch(trial, len(rows), optimizer)
            rows.append(row)
            previous = state["best"] and state["best"]["row"]
            if not has_diverged(row, trained.values()) and is_better(row, previous):
                kept = {name: p.detach().cpu().clone() for name, p in trained.items()}
                state["best"] = {"key": key, "row": dict(row), "weights": kept}
            state["running"] = {
                "key": key, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            }  # fmt: skip
            if len(rows) == recipe["epochs"]:
                state["running"] = None
            save_checkpoint(state, self.state_path, self.made_from)
            done = [len(state["epochs"].get(trial_key(other), [])) for other in trials]
            left = (recipe["epochs"] * len(trials) - sum(done)) * len(self.labels["train"])
            self.log(
                f"{self.run['dataset']} {self.run['method']}  "
                f"trial {trials.index(trial) + 1}/{len(trials)}  "
                f"epoch {len(rows)}/{recipe['epochs']}  loss {row['loss']:.3f}  "
                f"validation {row['val_accuracy']:.3f}  {row['images_per_second']:.0f} images/s  "
                f"{left / row['images_per_second']:.0f} s left"
            )

    def train_epoch(self, trial: dict, epoch: int, optimizer) -> dict:
        """One pass over the training images; the epoch's row."""
        images, labels, recipe = self.images["train"], self.labels["train"], self.recipe
        order = np.random.default_rng([self.seed, epoch]).permutation(len(labels))
        batches = torch.from_numpy(order).split(recipe["batch_size"])
        started, total = time.monotonic(), 0.0
        torch.manual_seed(self.seed * 10_000 + epoch)  # dropout, where a tower has it
        set_training(self.model)
        for number, batch in enumerate(batches):
            step = epoch * len(batches) + number
            rate = learning_rate_at(recipe, trial["learning_rate"], step, len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            prepared = self.preprocess.normalize(images[batch].to(DEVICE))
            vectors = self.model.encode_image(prepared, normalize=False)
            logits = classification_logits(
                self.model, vectors, encode_text(self.model, self.tokens)
            )
            loss = F.cross_entropy(logits, labels[batch].to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe["clip_norm"])
            optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=math.log(100))  # as in CLIP's training
            total += loss.item() * len(batch)
        seconds = time.monotonic() - started
        predicted = predict(
            self.model, self.preprocess, self.tokenizer, self.images["val"], self.captions
        )
        return {
            "trial": trial["trial"],
            "learning_rate_peak": trial["learning_rate"],
            "weight_decay": trial["weight_decay"],
            "epoch": epoch + 1,
            "loss": total / len(labels),
            "val_accuracy": (predicted == self.labels["val"]).double().mean().item(),
            "learning_rate": rate,
            "images_per_second": len(labels) / seconds,
        }


def finetune(run, model_spec, dataset, text_cache, recipe, trials, seed, output, log=print) -> None:
    """Run the trials of one (model, method, dataset) and write `output`'s three files."""
    with sole_writer(output):
        Job(run, model_spec, dataset, text_cache, recipe, seed, output, log).train(trials)
