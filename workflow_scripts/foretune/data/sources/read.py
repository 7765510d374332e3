"""The reader for each kind of source that an entry of the config can name."""

from pathlib import Path

from foretune.data.sources.base import TRAIN_AND_TEST, ImageSource
from foretune.data.sources.local import read_folder_source, read_parquet_source, read_table_source
from foretune.data.sources.public import read_public_source


def read_source(spec: dict, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """The source of a config's entry, with the wanted splits ("train" and "test", or "test").

    Raises ForetuneError, which names what is missing or broken and says what to do.
    """
    if "parquet" in spec:
        return read_parquet_source(Path(spec["parquet"]), wanted)
    if "folder" in spec:
        return read_folder_source(Path(spec["folder"]), wanted)
    if "table" in spec:
        return read_table_source(spec, wanted)
    return read_public_source(spec, wanted)
