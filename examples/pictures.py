"""Labelled grey pictures flow in; Parquet files in the Hugging Face layout flow out.

    image: struct<bytes: binary, path: string>    the picture as PNG (8-bit grey); path is null
    label: int64                                  the class, named by the ClassLabel in the metadata

The feature description is part of the *Arrow schema's* metadata (key `huggingface`): where a file has an `ARROW:schema`
without that key, `datasets` ignores the copy in the file's own key-value metadata.
"""

import hashlib
import json
import os
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq


def png(pixels: bytes, height: int, width: int) -> bytes:
    """An 8-bit grey PNG of height x width pixels, rows from the top, without filters or optional chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    assert len(pixels) == height * width
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def content_hash(pixels: bytes) -> str:
    """What splits are made by: BLAKE2b-256 of the raw pixel bytes, so that equal pictures fall on the same side."""
    return hashlib.blake2b(pixels, digest_size=32).hexdigest()


def smallest(rows: list[int], pixels: list[bytes], count: int) -> set[int]:
    """The `count` rows whose pictures have the smallest content hash; equal pictures in the order of the source."""
    return set(sorted(rows, key=lambda i: (content_hash(pixels[i]), i))[:count])


def smallest_of_each(labels: list[int], pixels: list[bytes], share: float) -> set[int]:
    """That share of the rows of each label, as `smallest` chooses them."""
    chosen = set()
    for label in set(labels):
        rows = [i for i, of in enumerate(labels) if of == label]
        chosen |= smallest(rows, pixels, round(len(rows) * share))
    return chosen


def schema(names: list[str]) -> pa.Schema:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def write(path: str, pictures: list[bytes], labels: list[int], names: list[str], row_group: int) -> None:
    """Writes PNG pictures and their labels beside `path`, checks what a reader gets back, and renames."""
    described = schema(names)
    table = pa.table(
        {"image": [{"bytes": p, "path": None} for p in pictures], "label": labels},
        schema=described,
    )
    # PNG is compressed already, and a column of few labels is dictionary-encoded: snappy costs nothing and all read it.
    pq.write_table(table, path + ".part", row_group_size=row_group, compression="snappy", use_dictionary=["label"])
    back = pq.read_table(path + ".part")
    assert back.equals(table) and back.schema.equals(described, check_metadata=True), path
    os.replace(path + ".part", path)
    print(f"{path}: {len(labels)} rows, {os.path.getsize(path)} bytes")
