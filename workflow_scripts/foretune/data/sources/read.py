"""Choose the reader for the kind of source that an entry of the config names."""

from pathlib import Path

from foretune.core.entries import SourceSpec
from foretune.data.sources.base import TRAIN_AND_TEST, ImageSource
from foretune.data.sources.local import read_folder_source, read_parquet_source
from foretune.data.sources.public import read_public_source
from foretune.data.sources.table import read_table_source


def read_source(spec: SourceSpec, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Return the source of a config's entry.

    Args:
        wanted: the splits to read, ("train", "test") or ("test",).

    Raises:
        ForetuneError: something is missing or broken; the message names it and says what to do.
    """
    if "parquet" in spec:
        return read_parquet_source(Path(spec["parquet"]), wanted)
    if "folder" in spec:
        return read_folder_source(Path(spec["folder"]), wanted, "classes" in spec)
    if "table" in spec:
        return read_table_source(spec, wanted)
    return read_public_source(spec, wanted)
