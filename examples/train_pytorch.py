"""Trains a small network on a distilled file of pictures and prints its accuracy on a test file.

    distill run examples/data/digits.parquet -o small.parquet --ipc 10
    python examples/train_pytorch.py small.parquet examples/data/digits-test.parquet

Wants torch, datasets and pillow.
"""

import sys

import torch
from datasets import Dataset
from torch import nn


def read(path):
    rows = Dataset.from_parquet(path).with_format("torch")[:]
    pictures = torch.stack(list(rows["image"])).float() / 255
    return pictures.reshape(len(pictures), -1), rows["label"]


torch.manual_seed(0)
(pictures, labels), (test_pictures, test_labels) = map(read, sys.argv[1:3])
model = nn.Sequential(nn.Linear(pictures.shape[1], 128), nn.ReLU(), nn.Linear(128, int(labels.max()) + 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
for _ in range(300):
    loss = nn.functional.cross_entropy(model(pictures), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
accuracy = (model(test_pictures).argmax(1) == test_labels).float().mean().item()
print(f"trained on {len(labels)} rows, tested on {len(test_labels)}: accuracy {accuracy:.4f}")
