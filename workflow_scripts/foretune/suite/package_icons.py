"""Tasks of icons: one class per thing shown, drawn by the artists of many Iconify sets.

None of the sets is in the pretraining corpus or in a bundled task, and none is derived from one.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from foretune.suite.corpus import ICON_STYLE, read_icons, render_icon
from foretune.suite.packages import locate_package
from foretune.suite.task_folders import Picture, Task

# Sets that show things, by licence.
MIT_SETS = (
    "akar-icons", "ant-design", "bi", "bx", "bxs", "bytesize", "charm", "clarity", "duo-icons",
    "ei", "eos-icons", "ep", "eva", "f7", "fe", "feather", "flat-color-icons", "flowbite",
    "fluent", "fluent-color", "fluent-mdl2", "fontisto", "gg", "gravity-ui", "healthicons",
    "heroicons", "hugeicons", "humbleicons", "iconoir", "icons8", "ion", "ix", "jam", "lineicons",
    "majesticons", "meteor-icons", "mi", "mynaui", "nimbus", "octicon", "oi", "ooui",
    "pajamas", "pixelarticons", "prime", "proicons", "quill", "radix-icons", "raphael", "si",
    "simple-line-icons", "stash", "tdesign", "teenyicons", "uiw", "weui", "wpf", "zondicons",
)  # fmt: skip
OTHER_SETS = (
    "entypo", "typcn",  # CC BY-SA 4.0
    "basil", "ci", "cil", "codicon", "fa6-regular", "fa6-solid", "guidance", "iconamoon",
    "lets-icons", "pepicons-pencil", "pepicons-pop", "pepicons-print", "pixel", "solar",
    "streamline", "streamline-freehand-color", "streamline-pixel", "streamline-plump",
    "streamline-ultimate-color",  # CC BY 4.0
    "carbon", "grommet-icons", "icon-park", "icon-park-outline", "la", "mage", "mingcute", "ri",
    "uil", "uim", "uis", "vaadin",  # Apache 2.0
    "circum", "el", "map", "wi", "et", "icomoon-free", "lucide", "gridicons",
    "system-uicons",  # MPL 2.0, OFL 1.1, GPL 3, ISC, GPL 2, Unlicense
)  # fmt: skip
SETS = MIT_SETS + OTHER_SETS
BRAND_SETS = (
    "ant-design", "bi", "bxl", "catppuccin", "devicon", "devicon-plain", "eva", "feather",
    "fontisto", "icons8", "ion", "jam", "lineicons", "material-icon-theme", "octicon", "prime",
    "radix-icons", "simple-line-icons", "skill-icons", "teenyicons", "uiw", "vscode-icons",  # MIT
    "cib", "logos", "simple-icons",  # CC0
    "entypo-social", "typcn", "basil", "cil", "fa6-brands", "streamline-logos",  # CC BY, CC BY-SA
    "grommet-icons", "la", "mage", "mingcute", "ri", "uil",  # Apache 2.0
    "el", "icomoon-free", "file-icons", "akar-icons", "hugeicons", "iconoir", "mynaui",
    "tdesign",  # OFL 1.1, GPL 3, ISC, MIT
)  # fmt: skip
LICENCES = ("MIT, Apache 2.0, CC BY 4.0, CC BY-SA 4.0, CC0, ISC, MPL 2.0, OFL 1.1, GPL 2, GPL 3, "
            "Unlicense")  # fmt: skip

# The names of each class's icons, without their style: regular expressions.
WEATHER = {
    "sun": r"sun|sunny|day sunny|clear day|weather sunny",
    "moon": r"moon|half moon|crescent moon|clear night|night clear|moon stars?|night|moon new",
    "cloud": r"clouds?|cloudy|weather cloudy|overcast",
    "rain": r"rain|rainy|(cloud|weather) (rain|rainy|drizzle|showers?)( heavy| \d)?|drizzle"
            r"|rain showers?|(heavy|light|moderate) rain|umbrella rain|cloud rain wind",
    "snow": r"snow|snowy|snowing|(cloud|weather) (snow|snowy)( heavy| \d)?|snow wind"
            r"|(heavy|light|moderate) snow",
    "snowflake": r"snowflake( \d| cold)?",
    "lightning": r"lightning|thunder|thunderstorms?|storm|cloud (lightning|thunder|bolt)"
                 r"|(cloud )?(lightning|thunder)( rain| storm)?|weather thunderstorm|thunder icon",
    "fog": r"fog|foggy|mist|haze|(cloud|weather) (fog|haze)( \d)?|smog",
    "wind": r"winds?|windy|wind \d|strong wind|wind flow( \d)?|weather windy|(cloud|clouds) wind"
            r"|cloud windy",
    "umbrella": r"umbrella( simple| open| \d)?",
    "rainbow": r"rainbow( cloud| clouds| \d)?|cloud rainbow",
    "thermometer": r"thermometer( simple| half| full| empty| \d| medium| low| high)?|temperature",
    "tornado": r"tornado( \d)?|hurricane|cyclone|hurricane \d|typhoon|cloud tornado",
}  # fmt: skip
THINGS = {
    "bell": r"bell|notifications?|bell ringing|alarm bell",
    "camera": r"camera( \d| photo| alt)?",
    "heart": r"heart|hearts|heart \d|love",
    "star": r"star|star \d|stars?",
    "house": r"home|house|home( \d)|house chimney",
    "trash can": r"trash|bin|trash can|trash \d|trash bin",
    "lock": r"lock|locked|lock closed|padlock|lock \d|lock on",
    "key": r"key|key \d|keys",
    "gift": r"gift|present|gift box|gift \d",
    "book": r"book|open book|book open|book \d|books?",
    "calendar": r"calendar|calendar \d|calendar (blank|days|event|month)",
    "clock": r"clock|time|clock \d|clock circle",
    "telephone": r"phone|telephone|call|phone \d|phone call",
    "envelope": r"mail|envelope|email|mail \d|envelope open",
    "folder": r"folder|folders|folder \d|folder open",
    "bookmark": r"bookmark|bookmarks|bookmark \d",
    "shopping cart": r"cart|shopping cart|cart \d|shopping cart \d",
    "microphone": r"mic|microphone|microphone \d|mic \d",
    "scissors": r"scissors|cut|scissor",
    "printer": r"printer|print|printer \d",
    "battery": r"battery|battery (full|half|empty|low|high|\d)",
    "globe": r"globe|world|earth|globe \d|globe alt",
    "eye": r"eye|view|visible|eye (on|open|alt|\d)",
    "car": r"car|car (alt|side|front|\d)|automobile",
    "bicycle": r"bicycle|bike|cycling",
    "airplane": r"airplane|plane|flight|aircraft|aeroplane|plane \d",
    "lightbulb": r"lightbulb|bulb|light bulb|idea|lamp bulb|bulb \d",
    "wrench": r"wrench|spanner|wrench \d",
    "shield": r"shield|security|shield \d",
    "trophy": r"trophy|trophy \d|cup trophy",
}
BRANDS = {
    name: rf"{pattern}( (logo|icon|original|plain|brand|color|dark|light|square|circle|\d))*"
    for name, pattern in {
        "Android": "android", "Apple": "apple", "Chrome": "(google )?chrome",
        "Docker": "docker", "Dropbox": "dropbox", "Facebook": "facebook( f)?", "Figma": "figma",
        "Firefox": "firefox( browser)?", "GitHub": "github( alt)?", "GitLab": "gitlab",
        "Google": "google", "Instagram": "instagram", "LinkedIn": "linkedin( in)?",
        "Pinterest": "pinterest( p)?", "Python": "python", "React": "react(js)?",
        "Reddit": "reddit( alien)?", "Slack": "slack", "Spotify": "spotify",
        "Telegram": "telegram( plane)?", "Twitter": "twitter( alt)?", "WhatsApp": "what.? ?app",
        "Windows": "(microsoft )?windows( ?\\d+)?", "WordPress": "wordpress( simple)?",
        "YouTube": "youtube",
    }.items()
}  # fmt: skip
# Words of a name that say nothing of what an icon shows.
STYLE_WORDS = re.compile(
    r"\b(outlined|outline|filled|fill|bold|thin|light|line|linear|duotone|twotone|broken|rounded|"
    r"round|sharp|solid|regular|alt|o|s|16|20|24|28|32|48|a|b|static|sweep|duo|color|curve|"
    r"flat|remix|line duotone|variant|ios|md|logo|brand|free|bulk|stroke|wf|f7)\b"
)
STYLE_PREFIX = re.compile(r"^(i|weather|file type|interface|ios|md|logo|social|brand)-")


def normalise_name(name: str) -> str:
    """Return what an icon shows: its name without words of style."""
    noun = ICON_STYLE.sub("", STYLE_PREFIX.sub("", name)).replace("-", " ")
    return " ".join(STYLE_WORDS.sub(" ", noun).split())


def draw_icons(packages: Path, classes: dict[str, str], sets: tuple[str, ...]) -> Iterator[Picture]:
    """Draw the icons of each class; the variants of one icon in one set are a group.

    Icons without colours are black. Equal pictures of two sets count once.
    """
    patterns = {name: re.compile(pattern) for name, pattern in classes.items()}
    seen = set()
    for prefix in sets:
        icons = read_icons(locate_package(packages, "npm", f"@iconify-json/{prefix}"))
        for icon, noun in ((icon, normalise_name(icon)) for icon in icons["icons"]):
            for name, pattern in patterns.items():
                if not pattern.fullmatch(noun) or icons["icons"][icon].get("hidden"):
                    continue
                picture = render_icon(icons, icon)
                if picture and not icons["palette"]:
                    black = Image.new("RGBA", picture.size, "black")
                    black.putalpha(picture.getchannel("A"))
                    picture = black
                if picture and (content := picture.tobytes()) not in seen:
                    seen.add(content)
                    yield Picture(name, picture, f"{prefix} {name}")


def _icon_task(
    classes: dict[str, str], sets: tuple[str, ...], caption: str, what: str, most: int
) -> Task:
    return Task(
        lambda packages: draw_icons(packages, classes, sets),
        tuple(("npm", f"@iconify-json/{prefix}") for prefix in sets),
        caption, LICENCES, f"{what} of {len(sets)} icon sets in npm's @iconify-json packages",
        most,
    )  # fmt: skip


TASKS = {
    "weather": _icon_task(WEATHER, SETS, "an icon of {}", "weather icons", 90),
    "things": _icon_task(THINGS, SETS, "an icon of a {}", "icons", 50),
    "brands": _icon_task(BRANDS, BRAND_SETS, "a logo of {}", "logos", 60),
}
