"""Bundled tasks of what artists made: emoji, flags, letters, stamps.

None of the sets used here is in the pretraining corpus (`leaks` checks it). A picture's origin
is its set and name there.
"""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from foretune.suite.bundles import write_pictures
from foretune.suite.corpus import (
    CORPUS_COLOURS,
    has_small_letters,
    read_font,
    read_icons,
    render_glyph,
    render_icon,
)
from foretune.suite.leak_check import DIGEST_SIDE, flatten

# OpenMoji's groups that are a class each; its extras and flags are none.
GROUPS = {
    "Smileys Emotion": "smiley", "People Body": "person or body part",
    "Animals Nature": "animal or plant", "Food Drink": "food or drink",
    "Travel Places": "place or vehicle", "Activities": "sport or celebration",
    "Objects": "household object", "Symbols": "symbol or sign",
}  # fmt: skip
TRANSPARENT = (255, 255, 255, 0)
VARIANT = re.compile(r"skin-tone|\b(medium|dark|light)\b|^flag")


def read_emoji_groups(sources: Path) -> dict[str, int]:
    """OpenMoji's names without skin tones -> class."""
    folder = sources / "npm/node_modules/@iconify-json/openmoji"
    groups = json.loads((folder / "metadata.json").read_text())["categories"]
    return {
        name: label
        for label, group in enumerate(GROUPS)
        for name in groups[group]
        if not VARIANT.search(name)
    }


def select_emoji(groups: dict[str, int], seed: int) -> set[str]:
    """A third of the emoji's names, drawn once: emoji_artists draws the same again."""
    names = sorted(groups)
    chosen = np.random.default_rng(seed).permutation(len(names))[: len(names) // 3]
    return {names[i] for i in chosen}


def bundle_emoji(sources: Path, output: Path, seed: int) -> None:
    """OpenMoji's emoji by group; a third is the test."""
    groups = read_emoji_groups(sources)
    held_out = select_emoji(groups, seed)
    icons = read_icons(sources / "npm/node_modules/@iconify-json/openmoji")
    rows = [
        {"picture": flatten(picture), "label": label, "origin": f"openmoji:{name}",
         "split": "test" if name in held_out else "train"}
        for name, label in groups.items()
        if (picture := render_icon(icons, name))
    ]  # fmt: skip
    write_pictures(output, rows, {
        "classes": list(GROUPS.values()),
        "caption": "a picture of a {}",
        "licence": "CC BY-SA 4.0 (OpenMoji)",
        "source": "OpenMoji by group, without skin tones, in npm's @iconify-json/openmoji",
    }, seed)  # fmt: skip


def bundle_emoji_artists(sources: Path, output: Path, seed: int) -> None:
    """The emoji of `bundle_emoji`'s test as three other artists drew them; a test only."""
    groups, rows = read_emoji_groups(sources), []
    held_out = select_emoji(groups, seed)
    for artist in ("emojione-v1", "fxemoji", "streamline-emojis"):
        icons = read_icons(sources / f"npm/node_modules/@iconify-json/{artist}")
        rows += [
            {"picture": flatten(picture), "label": groups[name], "origin": f"{artist}:{name}",
             "split": "test"}
            for name in icons["icons"]
            if name in held_out and (picture := render_icon(icons, name))
        ]  # fmt: skip
    write_pictures(output, rows, {
        "classes": list(GROUPS.values()),
        "caption": "a picture of a {}",
        "licence": "CC BY-SA 4.0 (Emoji One), Apache 2.0 (Mozilla), CC BY 4.0 (Streamline)",
        "source": "Emoji One 1, Firefox OS emoji and Streamline emojis, in npm's @iconify-json",
    }, seed)  # fmt: skip


COUNTRIES = {
    "argentina": "ar", "australia": "au", "austria": "at", "brazil": "br", "canada": "ca",
    "chile": "cl", "china": "cn", "cuba": "cu", "france": "fr", "germany": "de", "greece": "gr",
    "india": "in", "israel": "il", "italy": "it", "jamaica": "jm", "japan": "jp", "kenya": "ke",
    "mexico": "mx", "norway": "no", "poland": "pl", "portugal": "pt", "south-africa": "za",
    "south-korea": "kr", "spain": "es", "sweden": "se", "switzerland": "ch", "ukraine": "ua",
    "united-kingdom": "gb", "vietnam": "vn",
}  # fmt: skip
# How each artist's set spells a country: by its {name} or its ISO {code}.
FLAG_ARTISTS = {
    "twemoji": "flag-{name}", "emojione": "flag-for-{name}", "flagpack": "{code}", "cif": "{code}",
    "flag": "{code}-4x3",
}  # fmt: skip
OTHER_FLAG_ARTISTS = {
    "openmoji": "flag-{name}", "emojione-v1": "flag-for-{name}", "circle-flags": "{code}",
}  # fmt: skip


def simulate_photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An RGBA picture turned, tilted, scaled, shaded and blurred a little, on a coloured paper."""
    side = 4 * DIGEST_SIDE
    turn, zoom = rng.uniform(-0.35, 0.35), rng.uniform(1.0, 1.5)
    shear, stretch = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.15)
    linear = zoom * np.array([
        [np.cos(turn) * stretch, shear - np.sin(turn)],
        [np.sin(turn) * stretch, shear + np.cos(turn)],
    ])  # fmt: skip
    centre = side / 2 * (1 + rng.uniform(-0.12, 0.12, 2))
    offset = side / 2 - linear @ centre
    matrix = [*linear[0], offset[0], *linear[1], offset[1]]
    large = picture.resize((side, side), Image.Resampling.BICUBIC)
    moved = large.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    paper = CORPUS_COLOURS[str(rng.choice(list(CORPUS_COLOURS)))]
    canvas = Image.new("RGBA", (side, side), tuple(int(c * 0.6 + 80) for c in paper))
    canvas.alpha_composite(moved)
    y, x = np.mgrid[:side, :side] / side
    light = rng.uniform(0.75, 1.1) + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.25) * y
    pixels = np.asarray(canvas.convert("RGB")) * light[..., None]
    shaded = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return shaded.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))).resize(
        (DIGEST_SIDE, DIGEST_SIDE)
    )


def render_flags(
    sources: Path, artists: dict[str, str], counts: dict[str, int], seed: int
) -> list[dict]:
    """`counts` photographs a split of every artist's flag of every country."""
    rng, rows = np.random.default_rng(seed), []
    for artist, spelling in artists.items():
        icons = read_icons(sources / f"npm/node_modules/@iconify-json/{artist}")
        for label, (name, code) in enumerate(COUNTRIES.items()):
            icon = spelling.format(name=name, code=code)
            picture = ImageOps.pad(render_icon(icons, icon), (40, 40), color=TRANSPARENT)
            rows += [
                {"picture": simulate_photograph(picture, rng), "label": label, "split": split,
                 "origin": f"{artist}:{icon}"}
                for split, count in counts.items()
                for _ in range(count)
            ]  # fmt: skip
    return rows


def bundle_flags(sources: Path, output: Path, seed: int) -> None:
    """29 countries' flags by five artists, each photographed 7 times to train and 4 to test."""
    rows = render_flags(sources, FLAG_ARTISTS, {"train": 7, "test": 4}, seed)
    write_pictures(output, rows, {
        "classes": [name.replace("-", " ") for name in COUNTRIES],
        "caption": "a photo of the flag of {}",
        "licence": "CC BY 4.0 (Twitter, Emoji One), MIT (Yummygum, P. Lipiridis), CC0 (CoreUI)",
        "source": "Twemoji, Emoji One, Flagpack, Flag Icons and CoreUI, in npm's @iconify-json",
    }, seed)  # fmt: skip


def bundle_flags_artists(sources: Path, output: Path, seed: int) -> None:
    """The same countries' flags by three other artists, six photographs each; a test only."""
    rows = render_flags(sources, OTHER_FLAG_ARTISTS, {"test": 6}, seed)
    write_pictures(output, rows, {
        "classes": [name.replace("-", " ") for name in COUNTRIES],
        "caption": "a photo of the flag of {}",
        "licence": "CC BY-SA 4.0 (OpenMoji; Emoji One), MIT (HatScripts)",
        "source": "Flags of OpenMoji, Emoji One 1 and Circle Flags, in npm's @iconify-json",
    }, seed)  # fmt: skip


def bundle_letters(sources: Path, output: Path, seed: int) -> None:
    """Letters, capital or small, in Debian's fonts; the test's font families are its own."""
    families: dict[str, list[Path]] = {}
    for path in sorted((sources / "debian/usr/share/fonts").rglob("*.[ot]tf")):
        families.setdefault(read_font(path)[1], []).append(path)
    for odd in ("linuxbiolinumkeyboardo", "linuxlibertineinitialso"):  # pictures, not letters
        families.pop(odd)
    rng, rows = np.random.default_rng(seed), []
    for number, family in enumerate(rng.permutation(sorted(families))):
        font, _ = read_font(Path(rng.choice(families[family])))
        for label, letter in enumerate("abcdefghijklmnopqrstuvwxyz"):
            small = has_small_letters(font) and rng.random() < 0.5
            code = letter if small else letter.upper()
            if number < 60 and (glyph := render_glyph(font, code)):
                rows.append({"picture": simulate_letter_photograph(glyph, rng), "label": label,
                             "split": "train" if number < 40 else "test",
                             "origin": f"font {family}:{code}"})  # fmt: skip
    write_pictures(output, rows, {
        "classes": list("abcdefghijklmnopqrstuvwxyz"),
        "caption": 'a photo of the letter "{}"',
        "licence": "drawn with free fonts (OFL, GPL with font exception, public domain, others)",
        "source": "60 font families of Debian's fonts-* packages (tasks/debian.txt)",
    }, seed)  # fmt: skip


def simulate_letter_photograph(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The silhouette in dark ink on light paper or the other way round."""
    dark, light = rng.integers(0, 90, 3), rng.integers(165, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.7 else (light, dark)
    alpha = glyph.getchannel("A")
    picture = Image.new("RGB", glyph.size, tuple(map(int, paper)))
    picture.paste(Image.new("RGB", glyph.size, tuple(map(int, ink))), mask=alpha)
    return picture.rotate(
        rng.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor=tuple(map(int, paper))
    ).resize((DIGEST_SIDE, DIGEST_SIDE))


STAMPS = {
    "animals": "animal", "food": "food", "plants": "plant or flower", "town": "building or sign",
    "vehicles": "vehicle", "household": "household object",
    "seasonal": "holiday decoration", "symbols": "letter or symbol",
}  # fmt: skip


def bundle_stamps(sources: Path, output: Path, seed: int) -> None:
    """Tux Paint's stamps by folder, at most 130 a class; a third of them the test.

    The training stamps come with their mirror images, as Tux Paint gives them itself.
    """
    rng, rows = np.random.default_rng(seed), []
    top = sources / "debian/usr/share/tuxpaint/stamps"
    for label, folder in enumerate(STAMPS):
        files = sorted((top / folder).rglob("*.png"))
        files = [files[i] for i in rng.permutation(len(files))[:130]]
        for number, file in enumerate(files):
            picture = flatten(
                ImageOps.pad(Image.open(file).convert("RGBA"), (256, 256), color=TRANSPARENT)
            )
            origin = f"tuxpaint:{file.relative_to(top).with_suffix('')}"
            if number < len(files) // 3:
                rows.append({"picture": picture, "label": label, "split": "test", "origin": origin})
                continue
            mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            rows += [{"picture": p, "label": label, "split": "train", "origin": origin}
                     for p in (picture, mirrored)]  # fmt: skip
    write_pictures(output, rows, {
        "classes": list(STAMPS.values()),
        "caption": "a photo of a {}",
        "licence": "GPL 2 (Bill Kendrick and Tux Paint's contributors)",
        "source": "Tux Paint's stamps, Debian's tuxpaint-stamps-default",
    }, seed)  # fmt: skip
