"""Trains a classifier on a distilled file of pictures and prints its accuracy on a test file.

    distill run examples/data/digits.parquet -o small.parquet --ipc 10
    python examples/train_sklearn.py small.parquet examples/data/digits-test.parquet

Wants scikit-learn, pandas, pyarrow and pillow.
"""

import io
import sys

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression


def read(path):
    rows = pd.read_parquet(path)
    pictures = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["image"]]
    return np.stack(pictures).reshape(len(rows), -1) / 255, rows["label"]


(pictures, labels), (test_pictures, test_labels) = map(read, sys.argv[1:3])
model = LogisticRegression(max_iter=1000).fit(pictures, labels)
accuracy = model.score(test_pictures, test_labels)
print(f"trained on {len(labels)} rows, tested on {len(test_labels)}: accuracy {accuracy:.4f}")
