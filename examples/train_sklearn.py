"""Trains a classifier on a distilled file of pictures and prints its accuracy on a test file.

    distill run examples/data/digits.parquet -o small.parquet --ipc 10
    python examples/train_sklearn.py small.parquet examples/data/digits-test.parquet

Wants scikit-learn, datasets and pillow.
"""

import sys

from datasets import Dataset
from sklearn.linear_model import LogisticRegression

train, test = (Dataset.from_parquet(path).with_format("numpy")[:] for path in sys.argv[1:3])
x, test_x = (rows["image"].reshape(len(rows["image"]), -1) / 255 for rows in (train, test))
model = LogisticRegression(max_iter=1000).fit(x, train["label"])
accuracy = model.score(test_x, test["label"])
print(f"trained on {len(x)} rows, tested on {len(test_x)}: accuracy {accuracy:.4f}")
