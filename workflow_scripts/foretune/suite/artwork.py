"""Rebuild the bundled tasks that show artwork: emoji, flags, letters and stamps.

None of the test pictures is in the pretraining corpus (`leak_check` checks it). The origin of a
picture is the name of its set and its name in the set, "set:name".
"""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from foretune.core.errors import ForetuneError
from foretune.suite.bundles import PictureRow, write_picture_bundle
from foretune.suite.corpus import (
    CORPUS_COLOURS,
    CORPUS_SIDE,
    has_small_letters,
    read_font,
    read_icons,
    render_glyph,
    render_icon,
)
from foretune.suite.leak_check import DIGEST_SIDE, flatten

# OpenMoji's groups and the class that each is; its extras and flags are not used.
EMOJI_GROUPS = {
    "Smileys Emotion": "smiley", "People Body": "person or body part",
    "Animals Nature": "animal or plant", "Food Drink": "food or drink",
    "Travel Places": "place or vehicle", "Activities": "sport or celebration",
    "Objects": "household object", "Symbols": "symbol or sign",
}  # fmt: skip
TRANSPARENT = (255, 255, 255, 0)
SKIN_TONE_OR_FLAG = re.compile(r"skin-tone|\b(medium|dark|light)\b|^flag")


def read_emoji_groups(sources: Path) -> dict[str, int]:
    """Return the label of each emoji of OpenMoji by its name, without the skin tones."""
    folder = sources / "npm/node_modules/@iconify-json/openmoji"
    groups = json.loads((folder / "metadata.json").read_text())["categories"]
    return {
        name: label
        for label, group in enumerate(EMOJI_GROUPS)
        for name in groups[group]
        if not SKIN_TONE_OR_FLAG.search(name)
    }


def select_emoji(groups: dict[str, int], seed: int) -> set[str]:
    """Draw a third of the names as the test; the same for both emoji tasks if seeds are equal."""
    names = sorted(groups)
    chosen = np.random.default_rng(seed).permutation(len(names))[: len(names) // 3]
    return {names[i] for i in chosen}


def bundle_emoji(sources: Path, output: Path, seed: int) -> None:
    """Bundle OpenMoji's emoji, classified by group; a third of them is the test."""
    groups = read_emoji_groups(sources)
    held_out = select_emoji(groups, seed)
    icons = read_icons(sources / "npm/node_modules/@iconify-json/openmoji")
    rows: list[PictureRow] = [
        {"picture": flatten(picture), "label": label, "origin": f"openmoji:{name}",
         "split": "test" if name in held_out else "train"}
        for name, label in groups.items()
        if (picture := render_icon(icons, name))
    ]  # fmt: skip
    write_picture_bundle(output, rows, {
        "classes": list(EMOJI_GROUPS.values()),
        "caption": "a picture of a {}",
        "licence": "CC BY-SA 4.0 (OpenMoji)",
        "source": "OpenMoji by group, without skin tones, in npm's @iconify-json/openmoji",
    }, seed)  # fmt: skip


def bundle_emoji_artists(sources: Path, output: Path, seed: int) -> None:
    """Bundle the emoji of `bundle_emoji`'s test, drawn by three other artists; a test only."""
    groups = read_emoji_groups(sources)
    held_out = select_emoji(groups, seed)
    rows: list[PictureRow] = []
    for artist in ("emojione-v1", "fxemoji", "streamline-emojis"):
        icons = read_icons(sources / f"npm/node_modules/@iconify-json/{artist}")
        rows += [
            {"picture": flatten(picture), "label": groups[name], "origin": f"{artist}:{name}",
             "split": "test"}
            for name in icons["icons"]
            if name in held_out and (picture := render_icon(icons, name))
        ]  # fmt: skip
    write_picture_bundle(output, rows, {
        "classes": list(EMOJI_GROUPS.values()),
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
# How each artist's set names a flag: by the country's {name} or its ISO {code}.
FLAG_ARTISTS = {
    "twemoji": "flag-{name}", "emojione": "flag-for-{name}", "flagpack": "{code}", "cif": "{code}",
    "flag": "{code}-4x3",
}  # fmt: skip
OTHER_FLAG_ARTISTS = {
    "openmoji": "flag-{name}", "emojione-v1": "flag-for-{name}", "circle-flags": "{code}",
}  # fmt: skip


def simulate_photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn, shear, scale, shade and blur an RGBA picture at random, on a coloured background.

    Returns RGB of DIGEST_SIDE x DIGEST_SIDE pixels.
    """
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
    red, green, blue = (int(channel * 0.6 + 80) for channel in paper)
    canvas = Image.new("RGBA", (side, side), (red, green, blue))
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
) -> list[PictureRow]:
    """Simulate photographs of every artist's flag of every country, `counts[split]` per split.

    artists: the name of a set -> how it names a flag, see FLAG_ARTISTS.
    """
    rng = np.random.default_rng(seed)
    rows: list[PictureRow] = []
    for artist, spelling in artists.items():
        icons = read_icons(sources / f"npm/node_modules/@iconify-json/{artist}")
        for label, (name, code) in enumerate(COUNTRIES.items()):
            icon = spelling.format(name=name, code=code)
            flag = render_icon(icons, icon)
            if flag is None:
                raise ForetuneError(f"{artist}: the icon {icon} is empty")
            picture = ImageOps.pad(flag, (CORPUS_SIDE, CORPUS_SIDE), color=TRANSPARENT)
            rows += [
                {"picture": simulate_photograph(picture, rng), "label": label, "split": split,
                 "origin": f"{artist}:{icon}"}
                for split, count in counts.items()
                for _ in range(count)
            ]  # fmt: skip
    return rows


def bundle_flags(sources: Path, output: Path, seed: int) -> None:
    """Bundle 29 countries' flags by five artists, each with 7 training and 4 test photographs."""
    rows = render_flags(sources, FLAG_ARTISTS, {"train": 7, "test": 4}, seed)
    write_picture_bundle(output, rows, {
        "classes": [name.replace("-", " ") for name in COUNTRIES],
        "caption": "a photo of the flag of {}",
        "licence": "CC BY 4.0 (Twitter, Emoji One), MIT (Yummygum, P. Lipiridis), CC0 (CoreUI)",
        "source": "Twemoji, Emoji One, Flagpack, Flag Icons and CoreUI, in npm's @iconify-json",
    }, seed)  # fmt: skip


def bundle_flags_artists(sources: Path, output: Path, seed: int) -> None:
    """Bundle the same countries' flags by three other artists, 6 photographs each; a test only."""
    rows = render_flags(sources, OTHER_FLAG_ARTISTS, {"test": 6}, seed)
    write_picture_bundle(output, rows, {
        "classes": [name.replace("-", " ") for name in COUNTRIES],
        "caption": "a photo of the flag of {}",
        "licence": "CC BY-SA 4.0 (OpenMoji; Emoji One), MIT (HatScripts)",
        "source": "Flags of OpenMoji, Emoji One 1 and Circle Flags, in npm's @iconify-json",
    }, seed)  # fmt: skip


def bundle_letters(sources: Path, output: Path, seed: int) -> None:
    """Bundle letters, capital or small, in Debian's fonts.

    40 font families are for training and 20 others for the test. A family is a group.
    """
    families: dict[str, list[Path]] = {}
    fonts = sources / "debian/usr/share/fonts"
    for path in sorted(fonts.rglob("*.[ot]tf")):  # codespell:ignore ot
        families.setdefault(read_font(path)[1], []).append(path)
    for family in ("linuxbiolinumkeyboardo", "linuxlibertineinitialso"):
        families.pop(family)  # these draw pictures, not letters
    rng = np.random.default_rng(seed)
    rows: list[PictureRow] = []
    for number, family in enumerate(rng.permutation(sorted(families))):
        font, _ = read_font(Path(rng.choice([str(path) for path in families[family]])))
        for label, letter in enumerate("abcdefghijklmnopqrstuvwxyz"):
            small = has_small_letters(font) and rng.random() < 0.5
            code = letter if small else letter.upper()
            if number < 60 and (glyph := render_glyph(font, code)):
                rows.append({"picture": simulate_letter_photograph(glyph, rng), "label": label,
                             "split": "train" if number < 40 else "test",
                             "origin": f"font {family}:{code}",
                             "group": str(family)})  # fmt: skip
    write_picture_bundle(output, rows, {
        "classes": list("abcdefghijklmnopqrstuvwxyz"),
        "caption": 'a photo of the letter "{}"',
        "licence": "drawn with free fonts (OFL, GPL with font exception, public domain, others)",
        "source": "60 font families of Debian's fonts-* packages (tasks/debian.txt)",
    }, seed)  # fmt: skip


def simulate_letter_photograph(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn a silhouette a little, and give it dark ink on light paper or the other way round."""
    dark, light = rng.integers(0, 90, 3), rng.integers(165, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.7 else (light, dark)
    alpha = glyph.getchannel("A")
    picture = Image.new("RGB", glyph.size, (int(paper[0]), int(paper[1]), int(paper[2])))
    picture.paste(Image.new("RGB", glyph.size, (int(ink[0]), int(ink[1]), int(ink[2]))), mask=alpha)
    return picture.rotate(
        rng.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor=tuple(map(int, paper))
    ).resize((DIGEST_SIDE, DIGEST_SIDE))


# Folders of Tux Paint's stamps and the class that each is.
STAMP_FOLDERS = {
    "animals": "animal", "food": "food", "plants": "plant or flower", "town": "building or sign",
    "vehicles": "vehicle", "household": "household object",
    "seasonal": "holiday decoration", "symbols": "letter or symbol",
}  # fmt: skip


def bundle_stamps(sources: Path, output: Path, seed: int) -> None:
    """Bundle Tux Paint's stamps, classified by folder, at most 130 per class; a third is the test.

    Each training stamp is followed by its mirror image, which Tux Paint offers too. Both are one
    group, so that validation never has the mirror image of a training stamp.
    """
    rng = np.random.default_rng(seed)
    rows: list[PictureRow] = []
    top = sources / "debian/usr/share/tuxpaint/stamps"
    for label, folder in enumerate(STAMP_FOLDERS):
        files = sorted((top / folder).rglob("*.png"))
        files = [files[i] for i in rng.permutation(len(files))[:130]]
        for number, file in enumerate(files):
            picture = flatten(
                ImageOps.pad(Image.open(file).convert("RGBA"), (256, 256), color=TRANSPARENT)
            )
            origin = f"tuxpaint:{file.relative_to(top).with_suffix('')}"
            if number < len(files) // 3:
                rows.append({"picture": picture, "label": label, "split": "test", "origin": origin,
                             "group": origin})  # fmt: skip
                continue
            mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            rows += [{"picture": side, "label": label, "split": "train", "origin": origin,
                      "group": origin}
                     for side in (picture, mirrored)]  # fmt: skip
    write_picture_bundle(output, rows, {
        "classes": list(STAMP_FOLDERS.values()),
        "caption": "a photo of a {}",
        "licence": "GPL 2 (Bill Kendrick and Tux Paint's contributors)",
        "source": "Tux Paint's stamps, Debian's tuxpaint-stamps-default",
    }, seed)  # fmt: skip
