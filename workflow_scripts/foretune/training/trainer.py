"""The epoch loop and the validation of fine-tuning, for one trial at a time.

As in the first paper, the loss is the cross-entropy over the scaled cosine logits of the captions
of all classes. FLYP has the contrastive loss of a batch, and LP-FT that of a classifier of its own.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foretune.core.entries import ModelSpec, Trial
from foretune.core.errors import ForetuneError
from foretune.data.prepared import read_manifest, read_split
from foretune.encoders.cache import read_embeddings
from foretune.encoders.captions import get_captions
from foretune.encoders.encode import DEVICE, encode_captions, encode_images
from foretune.encoders.image_cache import load_batch, prepare_images
from foretune.encoders.imports import restore_compiler
from foretune.encoders.loading import digest_weights, encode_text, load_model
from foretune.encoders.zero_shot import classification_logits, predict_classes
from foretune.training import distributed
from foretune.training.augment import augment
from foretune.training.base_weights import BaseWeights
from foretune.training.fit_stacks import LabelledVectors
from foretune.training.methods import make_trainable
from foretune.training.optim import compute_learning_rate, make_optimizer
from foretune.training.text_probe import fit_text_probe
from foretune.training.towers import TASK_HEAD, TOWERS
from foretune.training.trainable import MethodSettings, TrainableModel, get_method_settings
from foretune.training.trials import EpochRow, JobSpec, get_trial_columns


def set_train_mode(model: nn.Module) -> None:
    """Set training mode, except for batch norms: their running statistics are not trained."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class Trainer:
    """A model with the prepared training and validation images and the captions of a dataset.

    The test split is never read.

    Args:
        text_cache: embedding cache of the captions, from which the captions are read.
        prepared: folder where prepared images are kept (see `encoders.image_cache`).

    Raises:
        ForetuneError: there are fewer validation images than GPUs.
    """

    def __init__(
        self,
        job: JobSpec,
        model_spec: ModelSpec,
        text_cache: Path,
        prepared: Path | None = None,
        log: Callable[[str], object] = print,
    ):
        self.method, self.recipe, self.seed = job.method, job.recipe, job.seed
        self.model, self.preprocess, self.tokenizer = load_model(model_spec, DEVICE)
        dataset_digest = read_manifest(job.dataset)["digest"]
        weights_digest = digest_weights(self.model)
        texts = read_embeddings(text_cache, dataset=dataset_digest, weights=weights_digest)
        self.captions = get_captions(texts)
        # What the numbers depend on besides the job's settings and the code.
        self.made_from = {
            "weights": weights_digest,
            "preprocessing": repr(self.preprocess.config),
            "dataset": dataset_digest,
            "captions": self.captions,
        }
        # The captions of all classes, and where those of each class begin.
        counts = [len(of_class) for of_class in self.captions]
        self.caption_counts, self.caption_starts = np.array(counts), np.cumsum([0, *counts[:-1]])
        flat = [caption for of_class in self.captions for caption in of_class]
        self.all_tokens = self.tokenizer(flat).to(DEVICE)
        self.tokens = self.all_tokens[self.caption_starts]
        self.images, self.labels = self.read_images(job, prepared, log)
        self.base = BaseWeights(self.model)
        self.frozen = self.encode_frozen()
        self.probe = self.fit_probe(job, log) if "probe" in self.recipe else {}
        if len(self.labels["val"]) < distributed.world_size():
            raise ForetuneError(
                f"{job.dataset}: has fewer validation images than the model has GPUs; set gpus to "
                f"{len(self.labels['val'])} or less"
            )
        if self.recipe["compile"]:
            restore_compiler()
        self.contrastive = False
        self.batch_loss = torch.compile(self.loss) if self.recipe["compile"] else self.loss
        self.step_loss: Callable[..., Tensor] = self.batch_loss

    def read_images(
        self, job: JobSpec, prepared: Path | None, log: Callable[[str], object]
    ) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
        """Return the prepared images and the labels of the splits to train on and to validate."""
        splits = ("train", "val")
        read = {split: self.read_split_images(job, split, prepared, log) for split in splits}
        return {k: images for k, (images, _) in read.items()}, {k: v for k, (_, v) in read.items()}

    def read_split_images(
        self, job: JobSpec, split: str, prepared: Path | None, log: Callable[[str], object]
    ) -> tuple[np.ndarray, Tensor]:
        """Return the prepared images (N, 3, H, W) and the labels (N,) of a split to use."""
        images = prepare_images(job.dataset, split, self.preprocess, prepared, log)
        labels = read_split(job.dataset, split, ["label"])["label"].to_numpy()
        rows = job.draw_rows(split, labels)
        return images[rows], torch.tensor(labels[rows]).long()

    def encode_frozen(self) -> dict[str, Tensor]:
        """Return the embeddings by a tower that is not trained, so that it runs only once.

        The keys are "text" for captions, and "train" and "val" for images. Training images that
        are augmented have no fixed embeddings.
        """
        frozen, trained_towers = {}, TOWERS[self.recipe["towers"]]
        if "text" not in trained_towers:
            frozen["text"] = encode_captions(self.model, self.tokenizer, self.captions).to(DEVICE)
        if "image" not in trained_towers:
            augmented = self.recipe["augmentation"] != {"crop": 1, "flip": False}
            for split in ("val",) if augmented else ("train", "val"):
                vectors = encode_images(self.model, self.preprocess, self.images[split])
                frozen[split] = vectors.to(DEVICE)
        return frozen

    def fit_probe(self, job: JobSpec, log: Callable[[str], object]) -> dict[str, Tensor]:
        """Return the weight (C, d) and bias (C,) of the classifier from which LP-FT starts.

        It is the best probe by validation accuracy, see `fit_text_probe`.
        """
        encoded = {k: encode_images(self.model, self.preprocess, v) for k, v in self.images.items()}
        data = {k: LabelledVectors(vectors, self.labels[k]) for k, vectors in encoded.items()}
        scale = self.model.logit_scale.exp().item()
        weights = fit_text_probe(job, data, self.frozen["text"].cpu(), scale, log)
        weights["weight"] = weights["weight"].T
        return {f"{TASK_HEAD}.{name}": tensor.to(DEVICE) for name, tensor in weights.items()}

    def get_settings(self, trial: Trial) -> MethodSettings:
        """Return the settings that the method needs for a trial."""
        settings = get_method_settings(self.recipe, trial)
        if self.probe:
            settings["head"] = [*self.probe[f"{TASK_HEAD}.weight"].shape]
        return settings

    def start_trial(self, trial: Trial) -> tuple[TrainableModel, torch.optim.Optimizer]:
        """Return the base model, prepared for training by the trial's settings, and an optimizer.

        The caller must merge the trainable model before the next trial starts.
        """
        self.base.restore()
        torch.manual_seed(self.seed)  # LoRA's weights start from random numbers
        trainable = make_trainable(self.model, self.method, self.get_settings(trial))
        self.base.keep(trainable.parameters)
        with torch.no_grad():
            for name, tensor in self.probe.items():
                trainable.parameters[name].copy_(tensor)
        self.contrastive = trainable.contrastive
        optimizer = make_optimizer(self.recipe, trial, list(trainable.parameters.values()))
        self.step_loss = distributed.average_gradients(self.model, self.batch_loss)
        return trainable, optimizer

    def loss(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Return the mean cross-entropy of this rank's images, or a batch's contrastive loss.

        Args:
            images: this rank's of the batch, normalized, (b, 3, H, W).
            labels: (b,), or for the contrastive loss those of the whole batch, (B,).
            rows: row numbers of the images in the training split, (b,).
        """
        device, precision = images.device.type, self.recipe["precision"]
        half = precision == "bf16" or (precision == "auto" and device == "cuda")
        with torch.autocast(device, torch.bfloat16, enabled=half), parametrize.cached():
            if "train" in self.frozen:
                vectors = self.frozen["train"][rows]
            else:
                vectors = self.model.encode_image(images, normalize=False)
            if head := getattr(self.model, TASK_HEAD, None):
                logits = head(F.normalize(vectors, dim=-1))
            else:
                texts = self.frozen.get("text")
                texts = encode_text(self.model, self.tokens) if texts is None else texts
                if self.contrastive:
                    vectors, texts = distributed.gather_rows(vectors, len(labels)), texts[labels]
                logits = classification_logits(self.model, vectors, texts)
        smoothing, logits = self.recipe["label_smoothing"], logits.float()
        if self.contrastive:
            # Each image is paired with one caption, also if others of its class are there (FLYP).
            labels = torch.arange(len(labels), device=labels.device)
            of_captions = F.cross_entropy(logits.T, labels, label_smoothing=smoothing)
            return (F.cross_entropy(logits, labels, label_smoothing=smoothing) + of_captions) / 2
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def train_epoch(
        self,
        trial: Trial,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        trainable: TrainableModel,
    ) -> EpochRow:
        """Train on each training image once, validate, and return the epoch's row.

        Args:
            epoch: number of finished epochs; with the seed, it determines all random draws.
        """
        size, n = self.recipe["batch_size"], len(self.labels["train"])
        order = np.random.default_rng([self.seed, epoch]).permutation(n)
        batches = np.array_split(order, range(size, n, size))
        generator = torch.Generator().manual_seed(self.seed * 10_000 + epoch)
        torch.manual_seed(self.seed * 10_000 + epoch)  # dropout, if a tower has it
        set_train_mode(self.model)
        started, losses = time.monotonic(), torch.zeros((), device=DEVICE)
        for step, batch in enumerate(batches, start=epoch * len(batches)):
            peak = trial["learning_rate"]
            rate = compute_learning_rate(self.recipe, peak, step, len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            self.draw_captions(step)
            draws = torch.rand(4, len(batch), generator=generator)
            loss = self.train_step(batch, draws, optimizer, trainable)
            losses += loss * len(batch)  # not .item(): a GPU would wait at every step
        mean_loss = distributed.all_reduce_sum(losses).item() / distributed.world_size() / n
        seconds = time.monotonic() - started
        return {
            **get_trial_columns(trial),
            "epoch": epoch + 1,
            "loss": mean_loss,
            "val_accuracy": self.validate(),
            "learning_rate": rate,
            "images_per_second": n / seconds,
            "ended": None,
        }

    def draw_captions(self, step: int) -> None:
        """Draw the caption of each class that a step trains on, from the seed and the step."""
        if (self.caption_counts > 1).any():
            drawn = np.random.default_rng([self.seed, step]).integers(self.caption_counts)
            self.tokens = self.all_tokens[self.caption_starts + drawn]

    def train_step(
        self,
        batch: np.ndarray,
        draws: Tensor,
        optimizer: torch.optim.Optimizer,
        trainable: TrainableModel,
    ) -> Tensor:
        """Update the parameters with one batch, and return this rank's weighted loss.

        Args:
            batch: row numbers in the training split, (B,).
            draws: random numbers for the augmentation, (4, B).
        """
        local = distributed.rank_indices(batch)
        images = self.preprocess.normalize(load_batch(self.images["train"], batch[local], DEVICE))
        images = augment(images, self.recipe["augmentation"], draws[:, local])
        rows = torch.from_numpy(batch[local])
        labelled = torch.from_numpy(batch) if self.contrastive else rows
        loss = self.step_loss(images, self.labels["train"][labelled].to(DEVICE), rows)
        if not self.contrastive:  # whose loss is the whole batch's on every rank
            loss = loss * distributed.loss_weight(batch)
        optimizer.zero_grad()
        loss.backward()
        if "clip_norm" in self.recipe:
            parameters = trainable.parameters.values()
            nn.utils.clip_grad_norm_(parameters, self.recipe["clip_norm"])
        optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100))  # as in CLIP's training
        return loss.detach()

    @torch.inference_mode()
    def validate(self) -> float:
        """Return the accuracy on the validation split."""
        self.model.eval()
        images, texts = self.frozen.get("val"), self.frozen.get("text")
        labels = self.labels["val"]
        local = slice(distributed.rank(), None, distributed.world_size())
        with parametrize.cached():
            if images is None:
                images = encode_images(self.model, self.preprocess, self.images["val"][local])
            else:
                images = images[local]
            if head := getattr(self.model, TASK_HEAD, None):
                predicted = head(F.normalize(images.to(DEVICE), dim=-1)).argmax(dim=1).cpu()
            else:
                if texts is None:
                    texts = encode_captions(self.model, self.tokenizer, self.captions)
                predicted = predict_classes(images.cpu(), texts.cpu())
        correct = predicted == labels[local]
        return distributed.all_reduce_sum(correct.double().sum().to(DEVICE)).item() / len(labels)
