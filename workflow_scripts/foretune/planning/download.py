"""Downloads over HTTP that resume where an earlier try stopped.

Written by hand because no library offers it as a documented function: pooch and torch.hub start a
broken download again from its first byte, and huggingface_hub resumes files of its own hub only.
"""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

ATTEMPTS = 5  # in a row that gain no byte


def download_file(url: str, path: Path) -> None:
    """Fetch a file over HTTP and resume from `{path}.part`, which an earlier try has left.

    Raises OSError if the server refuses, or if ATTEMPTS tries in a row gain nothing.
    """
    part = path.with_name(f"{path.name}.part")
    part.touch()
    failures = 0
    with tqdm(desc=path.name, unit="B", unit_scale=True, mininterval=5) as bar:
        while True:
            size_before = part.stat().st_size
            try:
                if append_rest(url, part, bar):
                    break
                error: Exception = OSError("the connection broke off")
            except urllib.error.HTTPError as refused:
                if refused.code < 500:
                    raise
                error = refused
            except (OSError, http.client.HTTPException) as broken:
                error = broken
            failures = 0 if part.stat().st_size > size_before else failures + 1
            if failures == ATTEMPTS:
                raise OSError(str(error)) from None
            time.sleep(0.1 * 2**failures)
    part.rename(path)


def append_rest(url: str, part: Path, bar: tqdm) -> bool:
    """Request the rest of a file and append what arrives; return whether the file is complete."""
    start = part.stat().st_size
    headers = {"User-Agent": "foretune", "Range": f"bytes={start}-"}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if error.code == 416 and total == str(start) and start:
            return True  # nothing was left
        raise
    with response, open(part, "ab") as file:
        if response.status != 206:  # a server without ranges sends the whole file
            file.truncate(0)
            start = 0
        length = response.headers.get("Content-Length")
        bar.total, bar.n = length and start + int(length), start
        while chunk := response.read(1 << 20):
            file.write(chunk)
            bar.update(len(chunk))
    return length is None or part.stat().st_size == start + int(length)
