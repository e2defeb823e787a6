"""The example scripts train on a distilled file, and what they learn from ten digits a class is worth having."""

import re
import subprocess
import sys

import pytest
from cases import DIGITS, DIGITS_TEST, ROOT

# These settings reach 0.958 (PyTorch) and 0.936 (scikit-learn), all rows 0.972 and 0.967; real rows, ten a class chosen at
# random, 0.87 to 0.92. What is below is broken: pictures, labels or their order.
BAR = 0.90


@pytest.fixture(scope="module")
def small(distill):
    output = distill.folder / "ten-a-class.parquet"
    distill("run", DIGITS, "-o", output, "--ipc", 10, "--width", 32, "--extractors", 10, "--steps", 300, "--quiet")
    return output


@pytest.mark.parametrize("script", ["train_pytorch.py", "train_sklearn.py"])
def test_an_example_learns_the_digits_from_ten_a_class(script, small):
    job = subprocess.run(
        [sys.executable, ROOT / "examples" / script, small, DIGITS_TEST], capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    said = re.fullmatch(r"trained on 100 rows, tested on 359: accuracy (0\.\d{4})\n", job.stdout)
    assert said, job.stdout
    assert float(said[1]) > BAR
