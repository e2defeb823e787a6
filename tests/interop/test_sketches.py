"""Stored sketches are ordinary Arrow: other tools read them, compute with them and write them back."""

import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from cases import DIGITS, DIGITS_TEST, ROOT

OPTIONS = "'extractors=2 width=8 depth=1 frequencies=64 ipc=1'"


@pytest.fixture(scope="module")
def sketches(distill):
    """Files of sketches of the digits' training and test rows."""
    files = []
    for name, source in [("train", DIGITS), ("test", DIGITS_TEST)]:
        files.append(distill.folder / f"{name}-sketches.parquet")
        query = f"SELECT label, distill_sketch_agg(image, {OPTIONS}) AS s FROM '{source}' GROUP BY label"
        distill("sql", "-c", f"COPY ({query}) TO '{files[-1]}' STORED AS PARQUET")
    return files


def test_the_example_computes_the_distances_that_sql_computes(distill, sketches):
    job = subprocess.run(
        [sys.executable, ROOT / "examples/sketches.py", *sketches], capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    first, *classes = job.stdout.splitlines()
    assert first.startswith("label (Int64) of a source with columns image, label; ")
    query = f"""SELECT a.label, d['distance'] AS distance, d['chance'] AS chance FROM (
        SELECT a.label, distill_distance(a.s, b.s) AS d FROM '{sketches[0]}' a JOIN '{sketches[1]}' b ON a.label = b.label) a
        ORDER BY label"""
    output = distill.folder / "distances.parquet"
    distill("sql", "-c", f"COPY ({query}) TO '{output}' STORED AS PARQUET")
    expected = pq.read_table(output).to_pylist()
    assert len(classes) == len(expected) == 10
    for line, row in zip(classes, expected, strict=True):
        said = re.fullmatch(r"class (\d): \d+ and \d+ rows, distance (-?[\d.]+), chance ([\d.]+)", line)
        assert int(said[1]) == row["label"]
        assert float(said[2]) == pytest.approx(row["distance"], abs=2e-6)
        assert float(said[3]) == pytest.approx(row["chance"], abs=2e-6)


def test_what_pyarrow_writes_back_is_distilled_like_the_original(distill, sketches):
    copy = distill.folder / "rewritten.parquet"
    table = pq.read_table(sketches[0])
    # Without the Arrow schema, as a writer that isn't Arrow has it: lists and texts are of other kinds then.
    pq.write_table(table.replace_schema_metadata(None), copy, store_schema=False)
    rows = []
    for source in [sketches[0], copy]:
        output = distill.folder / f"{source.stem}-small.parquet"
        distill("run", source, "-o", output, "--ipc", 1, "--steps", 3, "--quiet")
        rows.append(pq.read_table(output).to_pylist())
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10 and rows[0][0].keys() == {"image", "label"}
