"""The idx files of Fashion-MNIST flow in; train, test, fit and validation Parquet files flow out.

    python build.py IDX_DIR OUT_DIR
"""

import gzip
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from pictures import png, smallest, write  # noqa: E402

NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
SIDE = 28
ROW_GROUP = 5_000


def read(folder: str, part: str, rows: int) -> tuple[list[bytes], list[int]]:
    """The raw pixels of each picture (784 bytes) and the labels of `part` ('train' or 't10k')."""
    with gzip.open(os.path.join(folder, f"{part}-images-idx3-ubyte.gz")) as file:
        images = file.read()
    with gzip.open(os.path.join(folder, f"{part}-labels-idx1-ubyte.gz")) as file:
        labels = file.read()
    # idx: 0x00000803 (unsigned bytes, three dimensions) and the dimensions; 0x00000801 and one dimension; big-endian.
    assert struct.unpack(">IIII", images[:16]) == (0x803, rows, SIDE, SIDE), "not the expected pictures"
    assert struct.unpack(">II", labels[:8]) == (0x801, rows), "not the expected labels"
    size = SIDE * SIDE
    assert len(images) == 16 + rows * size and len(labels) == 8 + rows
    return [images[16 + i * size : 16 + (i + 1) * size] for i in range(rows)], list(labels[8:])


def main() -> None:
    idx, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    train, train_labels = read(idx, "train", 60_000)
    test, test_labels = read(idx, "t10k", 10_000)
    train_png = [png(p, SIDE, SIDE) for p in train]
    test_png = [png(p, SIDE, SIDE) for p in test]

    validation = smallest(list(range(len(train))), train, len(train) // 6)
    parts = {
        "train": range(len(train)),
        "fit": [i for i in range(len(train)) if i not in validation],
        "validation": sorted(validation),
    }
    for name, rows in parts.items():
        write(
            os.path.join(out, f"{name}.parquet"),
            [train_png[i] for i in rows],
            [train_labels[i] for i in rows],
            NAMES,
            ROW_GROUP,
        )
    write(os.path.join(out, "test.parquet"), test_png, test_labels, NAMES, ROW_GROUP)


if __name__ == "__main__":
    main()
