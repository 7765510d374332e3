"""Time a training step with the text context cut after the longest caption, and with the whole one.

ViT-B-32 with random weights, 397 captions (as many as SUN397 has classes), batch 128.
"""

import torch
import torch.nn.functional as F

from common import compare, write_table
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import encode_text
from foretune.encoders.zero_shot import classification_logits

CLASSES, BATCH = 397, 128
PLACES = ["abbey", "airplane cabin", "badminton court", "botanical garden", "indoor escalator",
          "hotel room", "natural lake", "outdoor swimming pool", "railroad track", "ski slope",
          "television studio", "vegetable garden"]  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", load_weights=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    captions = [f"a photo of a {PLACES[i % len(PLACES)]} {i // len(PLACES)}"
                for i in range(CLASSES)]  # fmt: skip
    tokens = tokenizer(captions)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(CLASSES, (BATCH,))

    def uncut(tokens):
        return model.encode_text(tokens, normalize=False)

    def logits(encode):
        return classification_logits(model, model.encode_image(images), encode(tokens))

    def step(encode):
        model.zero_grad()
        F.cross_entropy(logits(encode), labels).backward()

    def cut(tokens):
        return encode_text(model, tokens)

    with torch.no_grad():
        difference = (logits(cut) - logits(uncut)).abs().max().item()
    times = compare({"uncut": lambda: step(uncut), "cut": lambda: step(cut)}, runs=2)
    length = int(tokens.argmax(dim=1).max()) + 1
    rows = [
        {"context": tokens.shape[1], "seconds a step": f"{times['uncut']:.1f}", "ratio": "1"},
        {"context": length, "seconds a step": f"{times['cut']:.1f}",
         "ratio": f"{times['cut'] / times['uncut']:.2f}"},
    ]  # fmt: skip
    write_table(
        "text_context", "Text context cut after the longest caption", rows,
        f"ViT-B-32, random weights, {CLASSES} captions, batch {BATCH}: forward and backward pass, "
        f"medians of 2 runs in turn. Logits of the two differ by at most {difference:.1e}.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
