"""Tasks of pictures of sounds: spectrograms of voices and of drums."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import signal

from foretune.suite.packages import locate_package
from foretune.suite.task_folders import SIDE, Picture, Task

VOICES = {  # class -> Debian package and folder of its sounds
    "English": ("asterisk-core-sounds-en-wav", "en_US_f_Allison"),
    "Spanish": ("asterisk-core-sounds-es-wav", "es_MX_f_Allison"),
    "French": ("asterisk-core-sounds-fr-wav", "fr_CA_f_June"),
    "Russian": ("asterisk-core-sounds-ru-wav", "ru_RU_f_IvrvoiceRU"),
    "Italian by a man": ("asterisk-core-sounds-it-wav", "it_IT_m_Carlo"),
    "Italian by a woman": ("asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi"),
}
# Regular expressions for the names of sounds, looked for in this order.
DRUMS = {
    "hi-hat": r"hat|hh|^ho(?![a-z])", "snare drum": r"snare|rim|stick|^s[nrd]\d?\b|^rs(?![a-z])",
    "bass drum": r"kick|bass ?drum|(^|_)bd|^k\b", "tom": r"tom|^tm|^t\d|^ft(?![a-z])",
    "ride cymbal": r"ride|^rd|^rc(?![a-z])", "crash cymbal": r"crash|china|splash|^cc(?![a-z])",
    "bell or block": r"agogo|cowbell|bell|clave|block|glass|^cb|mc_cb",
    "hand drum": r"bongo|cajon|conga|djembe|head",
    "shaken or clapped instrument": r"maraca|tambourine|clap|snap",
}  # fmt: skip


def draw_spectrogram(samples: np.ndarray, rate: int, seconds: float, top: float) -> Image.Image:
    """Draw the first `seconds` of a sound up to `top` hertz: loud is dark, high is up.

    `samples` is one channel; a shorter sound is padded with silence. The range is 60 decibels.
    """
    length = round(rate * seconds)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    step = length // SIDE
    _, _, power = signal.spectrogram(samples, rate, nperseg=2 * step, noverlap=step)
    rows = round(top / (rate / 2) * (power.shape[0] - 1))
    level = 10 * np.log10(power[1 : rows + 1] + 1e-12)
    level = np.clip((level - level.max()) / 60 + 1, 0, 1)
    grey = Image.fromarray((255 * (1 - level[::-1])).astype(np.uint8))
    return grey.resize((SIDE, SIDE), Image.Resampling.BOX)


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Return the first channel of a sound file, without silence at its start, and its rate."""
    import soundfile

    samples, rate = soundfile.read(path, always_2d=True)
    samples = samples[:, 0]
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=0))
    return samples[loud[0] :] if len(loud) else samples[:0], rate


def draw_voices(packages: Path) -> Iterator[Picture]:
    """Draw the first 1.5 seconds of each announcement of that length, by language."""
    for name, (package, folder) in VOICES.items():
        top = locate_package(packages, "debian", package) / "usr/share/asterisk/sounds" / folder
        for path in sorted(top.rglob("*.wav")):
            samples, rate = read_sound(path)
            if len(samples) >= 1.5 * rate:
                yield Picture(name, draw_spectrogram(samples, rate, 1.5, 4000))


def draw_drums(packages: Path) -> Iterator[Picture]:
    """Draw the sounds of drum kits by instrument; one drum, struck softly or hard, is a group."""
    top = locate_package(packages, "debian", "hydrogen-drumkits") / "usr/share/hydrogen"
    patterns = {name: re.compile(pattern) for name, pattern in DRUMS.items()}
    for path in sorted(top.rglob("*.*")):
        if path.suffix not in (".wav", ".flac", ".aiff"):
            continue
        word = path.stem.lower()
        name = next((name for name, pattern in patterns.items() if pattern.search(word)), None)
        samples, rate = read_sound(path)
        if name and len(samples) > 0.02 * rate:
            drum = re.sub(r"[-_ ]?(\d+|hard(est)?|med|soft(est)?)$", "", word)
            group = f"{path.parent.name} {drum}"
            yield Picture(name, draw_spectrogram(samples, rate, 0.8, 12_000), group)


TASKS = {
    "voices": Task(
        draw_voices, tuple(("debian", package) for package, _ in VOICES.values()),
        "a spectrogram of speech in {}", "CC BY-SA 3.0, CC BY 3.0",
        "announcements of Asterisk, Debian's asterisk-core-sounds-* and asterisk-prompt-it-menardi",
    ),
    "drums": Task(
        draw_drums, (("debian", "hydrogen-drumkits"),), "a spectrogram of a {}",
        "GPL 2 or later, CC0, CC BY 3.0, CC BY-SA 3.0",
        "drum kits of Hydrogen, Debian's hydrogen-drumkits",
    ),
}  # fmt: skip
