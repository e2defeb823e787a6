"""The census example and `benches/census.sh`, without download and hours: made-up people, a stand-in for `distill`."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import ROOT
from datasets import ClassLabel, Dataset, Value

# What the driver asks of `distill run`, with random rows for every method but 'broken'.
STAND_IN = f"""#!{sys.executable}
import json, sys
import numpy as np, pyarrow.parquet as pq
words = sys.argv[1:]
if words == ["--version"]:
    print("stand-in 1")
    sys.exit()
said = dict(zip(words[2:], words[3:]))
if said["--method"] == "broken":
    sys.exit("error: broken")
assert words[0] == "run" and {{"--overwrite", "--json"}} < set(words) and said["--exclude"] == "instance_weight", words
table = pq.read_table(words[1])
draw, labels = np.random.default_rng(int(said["--seed"])), table["label"].to_numpy()
if "--rows" in said:
    rows = draw.choice(len(labels), int(said["--rows"]), replace=False)
else:
    rows = np.concatenate([draw.choice(np.flatnonzero(labels == label), int(said["--ipc"])) for label in set(labels)])
pq.write_table(table.take(rows), said["-o"])
report = {{"cpu_seconds": {{"total": 1.5}}, "wall_seconds": 2.5, "peak_memory_bytes": 3000000}}
print(json.dumps(report, separators=(",", ":")))
"""


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "examples/census/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fields(build, **said) -> list[str]:
    """A row of the source: zeros and 'Not in universe' but for what is said."""
    default = {build.CATEGORY: "Not in universe", build.WHOLE: "0", build.REAL: "1700.09"}
    row = {name: default[type] for name, type in build.COLUMNS.items()} | {"label": "- 50000."}
    return list((row | said).values())


def test_a_source_row_becomes_numbers_texts_and_nulls(build, tmp_path):
    people = [
        fields(build, age="73", hispanic_origin="NA", country_of_birth_self="?", year="95"),
        fields(build, age="58", citizenship="Foreign born- Not a citizen of U S ", label="50000+."),
    ]
    text = "".join(", ".join(row) + "\n" for row in people)
    (tmp_path / "census_income_1994_1995_train.csv").write_text(text)
    rows = build.read(str(tmp_path), "train", 2, 0)
    build.write(str(tmp_path / "people.parquet"), rows)
    first, second = pq.read_table(tmp_path / "people.parquet").to_pylist()
    assert (first["age"], first["label"], first["year"], first["instance_weight"]) == (73, 0, "95", 1700.09)
    assert first["hispanic_origin"] is None and first["country_of_birth_self"] is None
    assert first["class_of_worker"] == "Not in universe", "an answer, not a missing one"
    assert (second["citizenship"], second["label"]) == ("Foreign born- Not a citizen of U S", 1)
    features = Dataset.from_parquet(str(tmp_path / "people.parquet"), cache_dir=str(tmp_path)).features
    assert features["label"] == ClassLabel(names=["- 50000.", "50000+."])
    assert features["age"] == Value("int64") and features["year"] == Value("string")
    assert len(features) == 42


def test_equal_people_are_one_whatever_their_weight_and_label(build):
    one, same, other = fields(build), fields(build, instance_weight="3.5", label="50000+."), fields(build, age="1")
    assert build.person(one) == build.person(same) != build.person(other)


def test_rows_that_are_not_the_expected_ones_are_refused(build, tmp_path):
    people = [fields(build), fields(build, age="1", label="50000+."), fields(build, instance_weight="2.0")]
    (tmp_path / "census_income_1994_1995_train.csv").write_text("".join(", ".join(row) + "\n" for row in people))
    assert build.read(str(tmp_path), "train", 3, 1) == people
    with pytest.raises(AssertionError, match="rows"):
        build.read(str(tmp_path), "train", 2, 1)
    with pytest.raises(AssertionError, match="duplicates"):
        build.read(str(tmp_path), "train", 3, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    draw = np.random.default_rng(0)
    for name, rows in (("train", 400), ("test", 200)):
        label = (draw.random(rows) < 0.3).astype(np.int64)
        age = draw.normal(40 + 10 * label, 5)
        table = pa.table(
            {"age": age, "job": draw.choice(["cook", "mason"], rows), "instance_weight": age, "label": label}
        )
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "stand-in").write_text(STAND_IN)
    (folder / "stand-in").chmod(0o755)
    return folder


def drive(folder, *budgets, **environment):
    settings = {
        "DISTILL": str(folder / "stand-in"),
        "PYTHON": sys.executable,
        "OUT": str(folder / "out"),
        "SEEDS": "0 1",
    }
    return subprocess.run(
        [ROOT / "benches/census.sh", "train.parquet", "test.parquet", *budgets],
        cwd=folder, env=os.environ | settings | environment, capture_output=True, text=True,
    )  # fmt: skip


def test_the_driver_compares_methods_at_each_budget_and_names_what_failed(folder):
    options = {"METHODS": "k_means broken", "TABLES_OPTIONS": "--models logistic"}
    job = drive(folder, "ipc=5", "rows=20", **options)
    assert job.returncode == 1 and "broken, ipc=5, seed 1" in job.stderr, job.stderr
    lines = job.stdout.splitlines()
    assert "| k_means, rows=20 | 2 | 1.5 | 2.5 | 3 |" in lines
    trained = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:5] for line in lines if "| logistic |" in line}
    assert trained["k_means, ipc=5"] == ["10", "5 / 5", "logistic", "2"]
    assert trained["k_means, rows=20"][0] == "20" and trained["all rows"][0] == "400"
    assert "random rows" in trained and "broken, ipc=5" not in trained


def test_the_driver_keeps_files_that_are_there(folder):
    options = {"METHODS": "auto", "TABLES_OPTIONS": "--models logistic --no-full"}
    assert drive(folder, "ipc=3", **options).returncode == 0
    again = drive(folder, "ipc=3", **options)
    assert again.returncode == 0 and again.stderr == ""


def test_the_driver_refuses_a_budget_that_is_none(folder):
    job = drive(folder, "ten")
    assert job.returncode == 2 and "write rows=N or ipc=N" in job.stderr
