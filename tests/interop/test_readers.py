"""What `distill run` wrote is the same table to pyarrow, polars, DuckDB, pandas and `datasets`."""

import hashlib
import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from cases import IPC
from datasets import Dataset, Features


def plain(value):
    """A value as Python has it, whatever the reader wraps it in: arrays as lists, and what stands for NULL as None."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or value is pd.NA or value != value else value


def rows(table):
    return [[plain(value) for value in row.values()] for row in table.to_pylist()]


def test_the_schema_is_the_sources_in_pyarrow(job):
    case, source, output = job
    before, after = pq.read_schema(source), pq.read_schema(output)
    assert after.names == before.names == case.columns
    assert [str(field.type) for field in after] == case.arrow
    if not case.options:
        assert [str(field.type) for field in before] == case.arrow
    assert [field.name for field in after if not field.nullable] == case.required
    assert [field.nullable for field in after] == [field.nullable for field in before]
    assert [field.metadata for field in after] == [field.metadata for field in before]


def test_there_are_ipc_rows_a_class_sorted_by_label(job):
    case, source, output = job
    file = pq.ParquetFile(output)
    assert file.metadata.num_rows == IPC * case.classes
    label = next(name for name in ("label", "class") if name in case.columns)
    labels = pq.read_table(output)[label].to_pylist()
    assert labels == sorted(labels)
    assert {value: labels.count(value) for value in labels} == dict.fromkeys(
        pq.read_table(source)[label].unique().to_pylist(), IPC
    )


def test_polars_sees_the_same_table(job):
    case, _, output = job
    frame = pl.read_parquet(output)
    assert frame.columns == case.columns
    assert [str(type) for type in frame.dtypes] == case.polars
    assert [plain(row) for row in frame.rows()] == rows(pq.read_table(output))


def test_polars_scans_and_filters_it_lazily(job):
    case, _, output = job
    first = pl.scan_parquet(output).select(case.columns[-1]).head(1).collect()
    assert plain(first.row(0)) == [rows(pq.read_table(output))[0][-1]]


def test_duckdb_sees_the_same_table(job):
    case, _, output = job
    relation = duckdb.sql(f"FROM '{output}'")
    assert relation.columns == case.columns
    assert list(map(str, relation.types)) == case.duckdb
    assert [plain(row) for row in relation.fetchall()] == rows(pq.read_table(output))
    required = duckdb.sql(f"SELECT name FROM parquet_schema('{output}') WHERE repetition_type = 'REQUIRED'").fetchall()
    assert [name for (name,) in required if name in case.columns] == case.required


def test_pandas_sees_the_same_table(job):
    case, _, output = job
    frame = pd.read_parquet(output)
    assert list(frame.columns) == case.columns
    assert [str(type) for type in frame.dtypes] == case.pandas
    assert frame.index.equals(pd.RangeIndex(len(frame)))
    assert [plain(row) for row in frame.itertuples(index=False, name=None)] == rows(pq.read_table(output))


def test_datasets_sees_the_same_table(job, tmp_path):
    case, _, output = job
    if case.datasets is None:
        with pytest.raises(ValueError, match="does not have a datasets dtype equivalent"):
            Dataset.from_parquet(str(output), cache_dir=str(tmp_path))
        return
    dataset = Dataset.from_parquet(str(output), cache_dir=str(tmp_path))
    assert dataset.column_names == case.columns
    assert [str(feature) for feature in dataset.features.values()] == case.datasets
    assert Features.from_arrow_schema(pq.read_schema(output)) == dataset.features
    # As stored: pictures stay bytes.
    assert rows(dataset.with_format("arrow")[:]) == rows(pq.read_table(output))


def test_the_metadata_says_where_a_file_comes_from(job):
    case, source, output = job
    said = json.loads(pq.read_schema(output).metadata[b"datafusion-distill"])
    assert said["seed"] == 0 and said["version"]
    assert said["source"]["name"] == str(source)
    assert len(said["source"]["fingerprint"]) == 2 * hashlib.sha256().digest_size
    assert said["options"]["ipc"] == str(IPC) and said["options"]["steps"] == "5"
    assert said["options"].get("encoding", "source") == ("tensor" if case.options else "source")
    # Readers that know no Arrow schema find it too.
    query = f"SELECT value FROM parquet_kv_metadata('{output}') WHERE key = 'datafusion-distill'"
    ((value,),) = duckdb.sql(query).fetchall()
    assert json.loads(bytes(value)) == said
    assert json.loads(pl.read_parquet_metadata(output)["datafusion-distill"]) == said
