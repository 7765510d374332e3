"""Download and unpack the packages that tasks are made from: Debian's, npm's and PyPI's.

The pins are lines "registry name version". A Debian or PyPI package is unpacked into a folder of
its own, `{folder}/{registry}/{name}`; npm's lie in `{folder}/npm/node_modules`.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from foretune.core.errors import ForetuneError

REGISTRIES = ("debian", "npm", "pypi")


def read_pins(path: Path) -> dict[tuple[str, str], str]:
    """Return the version of each (registry, package) of a list of pins."""
    pins = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            registry, *rest = line.split()
            if registry not in REGISTRIES or len(rest) != 2:
                raise ForetuneError(
                    f'{path}, line {number}: "{line}" is not "registry name version" with one of '
                    f"{', '.join(REGISTRIES)}"
                )
            pins[registry, rest[0]] = rest[1]
    return pins


def locate_package(folder: Path, registry: str, name: str) -> Path:
    """Return where `fetch` puts a package."""
    return folder / registry / ("node_modules" if registry == "npm" else "") / name


def fetch(pins: Path, needed: Iterable[tuple[str, str]], folder: Path) -> Path:
    """Download and unpack each (registry, package) that is not in `folder` yet; return `folder`.

    Needs a network, and apt-get, npm and pip. Raises ForetuneError if a package has no pin.
    """
    versions = read_pins(pins)
    missing: dict[str, list[str]] = {registry: [] for registry in REGISTRIES}
    for registry, name in sorted(set(needed)):
        if (registry, name) not in versions:
            raise ForetuneError(f"{pins} has no line for {registry}'s {name}; add its version")
        if not locate_package(folder, registry, name).exists():
            missing[registry].append(name)
    for name in missing["debian"]:
        _fetch_debian(name, versions["debian", name], folder / "debian")
    if missing["npm"]:
        _fetch_npm({name: versions["npm", name] for name in missing["npm"]}, folder / "npm")
    for name in missing["pypi"]:
        _fetch_pypi(name, versions["pypi", name], folder / "pypi")
    return folder


def _fetch_debian(name: str, version: str, folder: Path) -> None:
    partial = folder / f"{name}.part"
    partial.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", f"{name}={version}"], cwd=partial, check=True)
    for package in partial.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=partial, check=True)
        package.unlink()
    os.rename(partial, folder / name)


def _fetch_npm(versions: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "package.json"
    if not manifest.exists():
        manifest.write_text(json.dumps({"private": True}))
    names = [f"{name}@{version}" for name, version in versions.items()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
    subprocess.run([*command, *names], cwd=folder, check=True)


def _fetch_pypi(name: str, version: str, folder: Path) -> None:
    partial = folder / f"{name}.part"
    partial.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", f"{name}=={version}"]
    subprocess.run(command, cwd=partial, check=True)
    for wheel in partial.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
        wheel.unlink()
    os.rename(partial, folder / name)
