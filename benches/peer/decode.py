"""Pillow's time to decode pictures like those of `cargo bench --bench decode`, one thread: libjpeg-turbo and zlib-ng, to compare the decoders of the crate with.

    target/interop/bin/python benches/peer/decode.py
"""

import io
import time

import numpy as np
from PIL import Image


def brightness(width, height, random):
    """A soft shape on a black ground, with grain on the shape."""
    u = 2 * (np.arange(width) + 0.5) / width - 1
    v = 2 * (np.arange(height) + 0.5) / height - 1
    u, v = np.meshgrid(u, v)
    inside = 1 - (u * u * 1.6 + v * v)
    value = 90 + 120 * inside + 6 * random.normal(size=(height, width))
    return np.where(inside < 0, 0, value.clip(0, 255)).astype("u1")


def main():
    random = np.random.default_rng(0)
    grey = [brightness(28, 28, random) for _ in range(64)]
    colours = [np.stack([v, v // 2, 255 - v], -1) for v in (brightness(640, 426, random) for _ in range(16))]
    print("| picture | bytes | Pillow, µs |\n|---|---|---|")
    for name, pictures, form in [
        ("PNG, 1x28x28", grey, "PNG"),
        ("PNG, 3x426x640", colours, "PNG"),
        ("JPEG, 3x426x640", colours, "JPEG"),
    ]:
        files = []
        for picture in pictures:
            file = io.BytesIO()
            Image.fromarray(picture).save(file, form)
            files.append(file.getvalue())
        times = []
        for _ in range(10):
            start = time.process_time()
            for file in files:
                np.asarray(Image.open(io.BytesIO(file)))
            times.append((time.process_time() - start) / len(files))
        print(f"| {name} | {len(files[0])} | {1e6 * sorted(times)[5]:.1f} |")


main()
