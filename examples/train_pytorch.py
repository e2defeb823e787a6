"""Trains a linear model on a distilled file of pictures and prints its accuracy on a test file.

    distill run examples/data/digits.parquet -o small.parquet --ipc 10
    python examples/train_pytorch.py small.parquet examples/data/digits-test.parquet

Wants torch, datasets and pillow.
"""

import sys

import torch
from datasets import Dataset

torch.manual_seed(0)
train, test = (Dataset.from_parquet(path).with_format("torch")[:] for path in sys.argv[1:3])
x, test_x = (torch.stack(list(rows["image"])).float().flatten(1) / 255 for rows in (train, test))
model = torch.nn.Linear(x.shape[1], int(train["label"].max()) + 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
for _ in range(300):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), train["label"]).backward()
    optimizer.step()
accuracy = (model(test_x).argmax(1) == test["label"]).float().mean()
print(f"trained on {len(x)} rows, tested on {len(test_x)}: accuracy {accuracy:.4f}")
