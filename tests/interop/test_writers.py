"""Files as pandas, polars and DuckDB write them can be distilled, and come back to their writer as they were."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from cases import NAMES, vectors

LISTS, LABELS = vectors()
TEXTS = [NAMES[label] for label in LABELS]


def test_a_pandas_frame_comes_back_with_its_columns_and_a_fresh_index(distill, tmp_path):
    frame = pd.DataFrame({"x": LISTS, "label": pd.Categorical(TEXTS)})
    frame.to_parquet(tmp_path / "pandas.parquet")
    small = pd.read_parquet(distill.run(tmp_path / "pandas.parquet", "pandas"))
    assert list(small.columns) == ["x", "label"] and list(small.dtypes) == list(frame.dtypes)
    # The source's own metadata speak of 60 rows.
    assert small.index.equals(pd.RangeIndex(6))
    assert list(small["label"]) == [name for name in NAMES for _ in range(2)]


def test_a_stored_pandas_index_is_a_column_like_others(distill, tmp_path):
    frame = pd.DataFrame({"x": LISTS, "label": LABELS}, index=[f"row {i}" for i in range(60)])
    frame.to_parquet(tmp_path / "indexed.parquet")
    output = distill.run(tmp_path / "indexed.parquet", "indexed")
    assert pq.read_schema(output).names == pq.read_schema(tmp_path / "indexed.parquet").names
    small = pd.read_parquet(output)
    assert list(small.columns) == ["x", "label"] and len(small) == 6
    assert small.index.isna().all(), "synthetic rows have no index of their own"


def test_polars_large_lists_and_categories_survive(distill, tmp_path):
    frame = pl.DataFrame(
        {"x": LISTS, "label": TEXTS},
        schema={"x": pl.List(pl.Float32), "label": pl.Categorical},
    )
    frame.write_parquet(tmp_path / "polars.parquet")
    output = distill.run(tmp_path / "polars.parquet", "polars")
    assert [field.type for field in pq.read_schema(output)] == [
        field.type for field in pq.read_schema(tmp_path / "polars.parquet")
    ]
    small = pl.read_parquet(output)
    assert small.schema == frame.schema
    assert small["label"].to_list() == [name for name in NAMES for _ in range(2)]


def test_polars_texts_and_arrays_survive(distill, tmp_path):
    frame = pl.DataFrame({"x": LISTS, "label": TEXTS}, schema={"x": pl.Array(pl.Float64, 6), "label": pl.String})
    frame.write_parquet(tmp_path / "arrays.parquet")
    assert pl.read_parquet(distill.run(tmp_path / "arrays.parquet", "arrays")).schema == frame.schema


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "uncompressed"])
def test_duckdb_files_without_an_arrow_schema_can_be_distilled(distill, tmp_path, codec):
    source = tmp_path / f"{codec}.parquet"
    lists = pl.DataFrame({"x": LISTS, "label": TEXTS})  # noqa: F841 (the query names it)
    duckdb.sql(f"COPY (SELECT x::FLOAT[] AS x, label FROM lists) TO '{source}' (FORMAT parquet, COMPRESSION {codec})")
    assert b"ARROW:schema" not in (pq.read_metadata(source).metadata or {})
    small = duckdb.sql(f"FROM '{distill.run(source, 'duckdb-' + codec)}'")
    assert small.columns == ["x", "label"] and list(map(str, small.types)) == ["FLOAT[]", "VARCHAR"]
    assert [label for _, label in small.fetchall()] == [name for name in NAMES for _ in range(2)]
