"""Tasks of printed characters: letters of scripts that the encoders never saw, in many fonts.

The fonts are Debian's, and none of their families is in the pretraining corpus.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFont

from foretune.suite.corpus import read_font, render_glyph
from foretune.suite.packages import locate_package
from foretune.suite.task_folders import MOST_PER_CLASS, Picture, Task

MISSING = "\U0010ffff"  # no font has it: it is drawn as the font's sign for a missing character
KANA = dict(zip(
    ("a", "i", "u", "e", "o", "ka", "ki", "ku", "ke", "ko", "sa", "shi", "su", "se", "so"),
    "あいうえおかきくけこさしすせそ", strict=True,
))  # fmt: skip
GREEK = dict(zip(
    ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
     "lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi",
     "psi", "omega"),
    "αβγδεζηθικλμνξοπρστυφχψω", strict=True,
))  # fmt: skip
CYRILLIC = "БГДЖЗИЙЛПУФЦЧШЩЪЫЬЭЮЯ"
HEBREW = dict(zip(
    ("alef", "bet", "gimel", "dalet", "he", "vav", "zayin", "het", "tet", "yod", "kaf", "lamed",
     "mem", "nun", "samekh", "ayin", "pe", "tsadi", "qof", "resh", "shin", "tav"),
    "אבגדהוזחטיכלמנסעפצקרשת", strict=True,
))  # fmt: skip
ARABIC = dict(zip(
    ("alif", "ba", "ta", "tha", "jim",  # codespell:ignore tha
     "hha", "kha", "dal", "dhal", "ra", "zay", "sin", "shin", "sad", "dad", "tta", "zza", "ayn",
     "ghayn", "fa", "qaf", "kaf", "lam", "mim", "nun", "ha", "waw", "ya"),
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", strict=True,
))  # fmt: skip
THAI = dict(zip(
    ("ko kai", "kho khai", "kho khwai", "ngo ngu", "cho chan", "cho chang", "so so", "yo ying",
     "do dek", "to tao", "tho thahan", "no nu", "bo baimai", "po pla", "pho phan",
     "fo fan",  # codespell:ignore fo
     "mo ma", "yo yak", "ro ruea", "lo ling", "wo waen", "so suea", "ho hip", "o ang"),
    "กขคงจชซญดตทนบปพฟมยรลวสหอ", strict=True,
))  # fmt: skip
HANGUL = dict(zip(
    ("ga", "na", "da", "ra", "ma", "ba", "sa", "a", "ja", "cha", "ka", "ta", "pa", "ha", "go",
     "no", "do", "ro", "mo", "bo"),
    "가나다라마바사아자차카타파하고노도로모보", strict=True,
))  # fmt: skip
GEORGIAN = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"
DEVANAGARI = "अआइईउऊएऐओकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह"

KANA_FONTS = (
    "aoyagi-soseki", "dejima-mincho", "ipafont-gothic", "ipafont-mincho", "kiloji", "konatu",
    "kouzan-mouhitsu", "migmix", "misaki", "monapo", "motoya-l-cedar", "motoya-l-maruberi",
    "oradano-mincho-gsrr", "reggae", "sawarabi-gothic", "sawarabi-mincho", "seto", "umeplus",
    "vlgothic", "yozvox-yozfont-antique", "yozvox-yozfont-cute", "yozvox-yozfont-standard-kana",
)  # fmt: skip
GREEK_FONTS = (
    "gfs-artemisia", "gfs-baskerville", "gfs-bodoni-classic", "gfs-complutum", "gfs-didot-classic",
    "gfs-gazis", "gfs-neohellenic", "gfs-olga", "gfs-porson", "gfs-solomos", "gfs-theokritos",
    "sil-galatia", "cmu", "croscore", "inter", "noto-mono", "crosextra-carlito", "firacode",
    "stix",
)  # fmt: skip
CYRILLIC_FONTS = ("paratype", "sil-charis", "uralic", "dustin", "linex", "monoid",
                  "georgewilliams")  # fmt: skip
HEBREW_FONTS = ("culmus", "culmus-fancy", "sil-ezra", "ldco")
ARABIC_FONTS = (
    "kacst", "kacst-one", "farsiweb", "freefarsi", "arabeyes", "hosny-amiri", "hosny-thabit",
    "lemonada", "sil-scheherazade", "sil-lateef", "sil-harmattan", "sil-alkalami",
)  # fmt: skip
THAI_FONTS = (
    "tlwg-garuda-ttf", "tlwg-kinnari-ttf", "tlwg-laksaman-ttf", "tlwg-loma-ttf", "tlwg-mono-ttf",
    "tlwg-norasi-ttf", "tlwg-purisa-ttf", "tlwg-sawasdee-ttf", "tlwg-typewriter-ttf",
    "tlwg-typist-ttf", "tlwg-typo-ttf", "tlwg-umpush-ttf", "tlwg-waree-ttf", "arundina",
)  # fmt: skip
HANGUL_FONTS = (
    "alee", "baekmuk", "nanum", "naver-d2coding", "unfonts-core", "unfonts-extra", "woowa-bm",
    "lexi-gulim", "lexi-saebom",
)  # fmt: skip
DEVANAGARI_FONTS = (
    "deva-extra", "gargi", "nakula", "sahadeva", "sarai", "samyak-deva", "sil-annapurna",
    "lohit-deva", "aksharyogini2",
)  # fmt: skip
# The characters of each script and the fonts that draw it.
SCRIPTS = {
    "Greek": ("".join(GREEK.values()), GREEK_FONTS),
    "Cyrillic": (CYRILLIC, CYRILLIC_FONTS),
    "Hebrew": ("".join(HEBREW.values()), HEBREW_FONTS),
    "Arabic": ("".join(ARABIC.values()), ARABIC_FONTS),
    "Thai": ("".join(THAI.values()), THAI_FONTS),
    "Korean": ("".join(HANGUL.values()), HANGUL_FONTS),
    "Georgian": (GEORGIAN, ("bpg-georgian",)),
    "Devanagari": (DEVANAGARI, DEVANAGARI_FONTS),
    "Japanese": ("".join(KANA.values()), KANA_FONTS),
}


def package_name(fonts: str) -> str:
    """Return the Debian package of a font family."""
    return fonts if fonts.startswith("culmus") else f"fonts-{fonts}"


def list_fonts(packages: Path, families: tuple[str, ...]) -> list[Path]:
    """List the font files of packages, in the order in which one installation would have them."""
    files = []
    for family in families:
        top = locate_package(packages, "debian", package_name(family)) / "usr/share/fonts"
        # Links would give a font twice.
        paths = (path for path in top.rglob("*.[ot]tf") if not path.is_symlink())
        files += [(path.relative_to(top), path) for path in paths]  # codespell:ignore ot
    return [path for _, path in sorted(files)]


def draw_black(font: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """Draw a text in black on a transparent ground; None if the font draws nothing for it."""
    if (glyph := render_glyph(font, text)) is None:
        return None
    black = Image.new("RGBA", glyph.size, "black")
    black.putalpha(glyph.getchannel("A"))
    return black


def draw_letters(
    packages: Path, letters: dict[str, str], families: tuple[str, ...]
) -> Iterator[Picture]:
    """Draw each letter with every font; equal pictures of two fonts count once.

    The styles of one family are a group for each letter.
    """
    seen = set()
    for path in list_fonts(packages, families):
        font, family = read_font(path)
        missing = bytes(font.getmask(MISSING))
        for name, code in letters.items():
            if bytes(font.getmask(code)) == missing:
                continue
            picture = draw_black(font, code)
            if picture and picture.tobytes() not in seen:
                seen.add(picture.tobytes())
                yield Picture(name, picture, f"{name} {family}")


def draw_scripts(packages: Path) -> Iterator[Picture]:
    """Draw random strings of two or three letters of each script with its fonts."""
    for name, (letters, families) in SCRIPTS.items():
        fonts = list_fonts(packages, families)
        rng = random.Random(name)
        for number in range(200):
            # Raqm, which not every installation of Pillow has, would join Arabic letters.
            font = read_font(fonts[number % len(fonts)])[0].font_variant(
                layout_engine=ImageFont.Layout.BASIC
            )
            missing = bytes(font.getmask(MISSING))
            known = [code for code in letters if bytes(font.getmask(code)) != missing]
            if len(known) < len(letters) / 2:
                continue
            text = "".join(rng.choices(known, k=rng.choice((2, 3))))
            if picture := draw_black(font, text):
                yield Picture(name, picture)


def _letters_task(
    letters: dict[str, str],
    families: tuple[str, ...],
    language: str,
    caption: str,
    most_per_class: int = MOST_PER_CLASS,
) -> Task:
    return Task(
        lambda packages: draw_letters(packages, letters, families),
        tuple(("debian", package_name(family)) for family in families),
        caption, "drawn with free fonts", f"{language} fonts of Debian's fonts-* packages",
        most_per_class,
    )  # fmt: skip


TASKS = {
    "kana": _letters_task(KANA, KANA_FONTS, "Japanese", 'a photo of the letter "{}"'),
    "greek": _letters_task(GREEK, GREEK_FONTS, "Greek", "a photo of the Greek letter {}", 60),
    "hebrew": _letters_task(HEBREW, HEBREW_FONTS, "Hebrew", "a photo of the Hebrew letter {}", 60),
    "arabic": _letters_task(ARABIC, ARABIC_FONTS, "Arabic", "a photo of the Arabic letter {}", 50),
    "thai": _letters_task(THAI, THAI_FONTS, "Thai", "a photo of the Thai letter {}", 60),
    "hangul": _letters_task(HANGUL, HANGUL_FONTS, "Korean", "a photo of the Korean syllable {}"),
    "scripts": Task(
        draw_scripts,
        tuple(sorted({("debian", package_name(family))
                      for _, families in SCRIPTS.values() for family in families})),
        "a photo of letters in {} script", "drawn with free fonts",
        "fonts of nine scripts in Debian's fonts-* packages",
    ),
}  # fmt: skip
