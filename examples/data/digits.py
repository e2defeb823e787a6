"""The digits that scikit-learn ships flow in; digits.parquet (train) and digits-test.parquet (test) flow out, or the two parts that train is split into.

    python examples/data/digits.py            writes beside this script
    python examples/data/digits.py FOLDER     writes digits-fit.parquet and digits-validation.parquet into FOLDER, to choose settings on

Run it with the packages of requirements.txt; `README.md` beside it says where the data comes from and how it is split.
"""

import gzip
import os
import sys
from importlib import resources

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from pictures import png, smallest, smallest_of_each, write  # noqa: E402

SIDE = 8
ROWS = 1_797
ROW_GROUP = 256


def read() -> tuple[list[bytes], list[int]]:
    """The pixels of each picture (64 bytes, 0..16 stretched to 0..255) and its digit."""
    file = resources.files("sklearn.datasets.data").joinpath("digits.csv.gz")
    lines = gzip.decompress(file.read_bytes()).decode().split()
    # 64 counts from 0 to 16 and the digit, written as floats. Only the count 8 falls on a half: 127.5 becomes 128.
    table = [[round(float(field)) for field in line.split(",")] for line in lines]
    assert len(table) == ROWS and all(len(row) == SIDE * SIDE + 1 for row in table), "not the expected digits"
    assert all(0 <= v <= 16 for row in table for v in row[:-1])
    return [bytes(round(v * 255 / 16) for v in row[:-1]) for row in table], [row[-1] for row in table]


def main() -> None:
    pixels, labels = read()
    test = smallest_of_each(labels, pixels, 1 / 5)
    train = [i for i in range(ROWS) if i not in test]
    out, parts = os.path.dirname(os.path.abspath(__file__)), {"digits": train, "digits-test": sorted(test)}
    if len(sys.argv) > 1:
        validation = smallest(train, pixels, len(train) // 6)
        out = sys.argv[1]
        os.makedirs(out, exist_ok=True)
        parts = {"digits-fit": [i for i in train if i not in validation], "digits-validation": sorted(validation)}
    for name, rows in parts.items():
        write(
            os.path.join(out, f"{name}.parquet"),
            [png(pixels[i], SIDE, SIDE) for i in rows],
            [labels[i] for i in rows],
            [str(digit) for digit in range(10)],
            ROW_GROUP,
        )


if __name__ == "__main__":
    main()
