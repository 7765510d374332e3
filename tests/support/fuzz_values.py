"""Hypothesis' strategies of files with wrong values, for tests/fuzz.py: pairs (file, content)."""

import contextlib
import copy
import csv
import datetime
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        "", "{}", "{", "a" * 5000, "../x", "/etc/passwd", "x\0y", "é", "e\u0301", "\u202e", "NA",
        "1e3", "-1", "999999999999999999999", "resources/mini/clip", "mnist", "full", "test",
    ]),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-2, 40), st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**4000, 10**9]),
    st.floats(width=64),
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS,
                    st.just(datetime.date(2020, 1, 1)), st.just(b"\xff"))  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS | NUMBERS, v, max_size=3),
    max_leaves=6,
)  # fmt: skip
# Lines of YAML that dumped values do not have.
LINES = st.sampled_from([
    "", "title: a\ntitle: b\n", "<<: {title: 1}\n", "<<: [1]\n", "? [a]\n: 1\n", "? {a: b}\n: 1\n",
    "x: !!set {a, b}\n", "x: !!omap [a: 1]\n", "x: !!python/name:os.system\n", "x: *no\n",
    "x: &a [*a]\n", "title: &t {<<: *t}\n", "seed: 0x" + "f" * 5000 + "\n", "seed: 1:30\n",
    "x: " + "[" * 3000 + "]" * 3000 + "\n", "x: " + "{a: " * 300 + "}" * 300 + "\n", "---\na: 1\n",
    "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12)),
    "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{f'*m{i - 1},' * 9}]}}\n"
                                 for i in range(1, 12)),
    "title: \ud7ff\x07\n", "\t", "%YAML 9.9\n", "1: a\n", "null: a\n", "2020-01-01: a\n",
])  # fmt: skip


@st.composite
def change(draw, tree: Any, most: int = 3, loops: bool = False) -> Any:
    """Return a tree of dicts and lists with a few changes at random places."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = isinstance(node[key], dict | list) and node[key]
            if inner and node[key] is not tree and draw(st.integers(0, 3)):
                node = node[key]
                continue
            action = draw(st.sampled_from(["set", "set", "set", "drop", "rename", "share", "loop"]))
            if action == "set":
                node[key] = draw(VALUES)
            elif action == "drop":
                del node[key]
            elif action == "rename" and isinstance(node, dict):
                node[draw(TEXTS | NUMBERS)] = node.pop(key)
            elif action == "share" and loops:
                other = tree[draw(st.sampled_from(list(tree)))] if tree else None
                if other is not node:
                    node[key] = other
            elif action == "loop" and loops and not draw(st.integers(0, 9)):
                node[key] = node
            break
    return tree


@st.composite
def make_studies(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    tree = draw(change(yaml.safe_load(files["study.yaml"]), loops=True))
    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    lines = draw(LINES)
    text = text + lines if draw(st.booleans()) else lines + text
    return "study.yaml", text.encode("utf-8", "surrogatepass")


CONDITIONS = st.sampled_from([
    "number", "number + 1", "True", "1", "'a'", "label", "number > 3", "label == 1", "index",
    "number.isna()", "number.abs()", "label.str.len()", "label.str", "label.str.upper()",
    "split in ['train']", "~number", "-number", "'a' * 999999999", "file.x",
    "number.between(1, 2)", "number.index", "index > 3", "(number, label)", "[1, 2]",
    "number.round() > 0", "number > 'a'",
    "number // 0 > 1", "label.str.match('(a*)*b')", "number == number", "number ** 99999999",
    "label < split", "`number` > 0", "`a b` > 0", "not number", "number & 3", "number and label",
    "label.isin(1)", "label.isin([1, None])", "number.dt.year > 3", "label != ''",
])  # fmt: skip
TEMPLATES = st.sampled_from([
    "{file}", "{row}", "{number:05d}", "{number:>99999999}", "{label:d}", "{}", "{0}", "{file!r}",
    "{file.x}", "{file[0]}", "{", "}", "{{file}}", "images/{label}/{number}.png", "{file:{row}}",
    "{number:.3f}", "{number:%}", "{row:>10}", "{row:s}", "/{file}", "../{file}", "{file:.3}", "x",
])  # fmt: skip


@st.composite
def make_csv(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Change cells of one of the tables, or the table's entry in a study."""
    if draw(st.booleans()):
        entry = json.loads(files["entry.json"])
        part = draw(st.sampled_from(["splits", "image", ""]))
        if part == "splits":
            entry["splits"][draw(st.sampled_from(["train", "test"]))] = draw(CONDITIONS)
        elif part == "image":
            entry["image"] = draw(TEMPLATES)
        else:
            entry = draw(change(entry, 1))
        return "entry.json", json.dumps(entry, default=str).encode()
    name = draw(st.sampled_from(["table.csv", "images/groups.csv", "outcomes.csv"]))
    rows = list(csv.reader(files[name].decode().splitlines()))
    for _ in range(draw(st.integers(1, 4))):
        row = rows[draw(st.integers(0, min(5, len(rows) - 1)))]
        cell = draw(st.integers(0, len(row)))
        row[cell : cell + draw(st.integers(0, 1))] = [str(draw(SCALARS))[:9000]]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    return name, text.getvalue().encode(encoding, "surrogatepass")


TYPES = st.sampled_from([
    pa.int32(), pa.int64(), pa.uint64(), pa.int8(), pa.float64(), pa.string(), pa.binary(),
    pa.large_binary(), pa.bool_(), pa.null(), pa.large_string(), pa.list_(pa.int32()),
    pa.dictionary(pa.int32(), pa.string()), pa.date32(), pa.decimal128(10, 2), pa.string_view(),
    pa.binary(4), pa.struct([("bytes", pa.binary())]), pa.timestamp("ns"), pa.int16(),
])  # fmt: skip


@st.composite
def make_tables(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Change columns, values and metadata of the Parquet dataset."""
    table = pq.read_table(io.BytesIO(files["it.parquet"]))
    facts = json.loads(table.schema.metadata[b"foretune"])
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(columns)))
        kind, values = draw(TYPES), columns[name].to_pylist()
        for _ in range(draw(st.integers(0, 3))):
            values[draw(st.integers(0, len(values) - 1))] = draw(SCALARS | st.binary(max_size=9))
        way = draw(st.sampled_from(["cast", "guess", "null", "keep"]))
        with contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError, KeyError):
            if way == "cast":
                columns[name] = columns[name].cast(kind)
            elif way == "null":
                columns[name] = pa.array([None] * len(values), kind)
            else:
                columns[name] = pa.array(values, columns[name].type if way == "keep" else None)
    if draw(st.booleans()):
        facts = draw(change(facts, 2))
    names = list(columns)
    if draw(st.booleans()):
        names[draw(st.integers(0, len(names) - 1))] = draw(st.sampled_from(["image", "label", "x"]))
    text = json.dumps(facts, default=str) if draw(st.integers(0, 5)) else draw(TEXTS)
    made = pa.table(list(columns.values()), names=names)
    made = made.slice(0, draw(st.sampled_from([48, 48, 48, 0, 1, 40])))
    made = made.replace_schema_metadata({"foretune": text.encode("utf-8", "surrogatepass")})
    buffer = io.BytesIO()
    pq.write_table(made, buffer, row_group_size=10)
    return "it.parquet", buffer.getvalue()


@st.composite
def make_arrays(draw, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Change the type, the shape or some values of one of the arrays."""
    name = draw(st.sampled_from(["images.npy", "texts.npy", "labels.npy"]))
    array = np.load(io.BytesIO(files[name]))
    kind = draw(st.sampled_from(["f2", ">f4", "f8", "f16", "i1", "u8", ">i4", "?", "c8", "U3",
                                 "M8[s]", "V3", "f4,i2", "i8"]))  # fmt: skip
    try:
        array = array.astype(kind) if draw(st.booleans()) else array
    except (TypeError, ValueError):
        array = np.zeros(array.shape, kind)
    special = draw(st.sampled_from([0, 1e300, float("nan"), -1, 2**40, 1e-320]))
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        array[draw(st.integers(0, len(array) - 1))] = special
    shape = draw(st.sampled_from(["", "", "", "none", "flat", "more", "column", "short", "order"]))
    array = {"none": array[:0], "flat": array.ravel(), "more": array[None], "short": array[:7],
             "column": array[..., :1] if array.ndim > 1 else array[:, None],
             "order": np.asfortranarray(array)}.get(shape, array)  # fmt: skip
    buffer = io.BytesIO()
    np.save(buffer, array)
    return name, buffer.getvalue()
