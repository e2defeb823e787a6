"""Names of cases flow in; small labelled Parquet files, and what each reader is to see in the distilled ones, flow out.

Rows of a class lie around a point of their own, so that a few steps are enough.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples/data/digits.parquet"
DIGITS_TEST = ROOT / "examples/data/digits-test.parquet"
NAMES = ["alpha", "beta", "gamma"]
IPC = 2


@dataclass
class Case:
    """A source, the options it is distilled with, and per column the types that readers are to report."""

    source: object  # a pyarrow table, or the path of a file
    columns: list[str]
    arrow: list[str]
    polars: list[str]
    duckdb: list[str]
    pandas: list[str]
    datasets: list[str] | None  # None: `datasets` can't read the type, from any file
    classes: int = 3
    options: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)

    def write(self, path: Path) -> Path:
        if isinstance(self.source, pa.Table):
            pq.write_table(self.source, path)
            return path
        return self.source


def vectors(rows: int = 60, length: int = 6) -> tuple[list[list[float]], list[int]]:
    """`rows` lists of numbers around 0, 1 or 2, and which."""
    numbers = random.Random(0)
    labels = [i % len(NAMES) for i in range(rows)]
    return [[numbers.gauss(label, 0.3) for _ in range(length)] for label in labels], labels


def cases() -> dict[str, Case]:
    lists, labels = vectors()
    texts = [NAMES[label] for label in labels]
    storage = pa.FixedSizeListArray.from_arrays(pa.array([x for row in lists for x in row], pa.float32()), 6)
    tensors = pa.FixedShapeTensorArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 3)), storage)
    picture = "struct<bytes: binary, path: string>"
    class_label = f"ClassLabel(names={[str(digit) for digit in range(10)]})"
    return {
        "pictures": Case(
            source=DIGITS,
            classes=10,
            columns=["image", "label"],
            arrow=[picture, "int64"],
            polars=["Struct({'bytes': Binary, 'path': String})", "Int64"],
            duckdb=["STRUCT(bytes BLOB, path VARCHAR)", "BIGINT"],
            pandas=["object", "int64"],
            datasets=["Image(mode=None, decode=True)", class_label],
        ),
        "pictures as tensors": Case(
            source=DIGITS,
            classes=10,
            options=["--encoding", "tensor"],
            columns=["image", "label"],
            arrow=["list<item: list<item: list<item: float>>>", "int64"],
            polars=["List(List(List(Float32)))", "Int64"],
            duckdb=["FLOAT[][][]", "BIGINT"],
            pandas=["object", "int64"],
            datasets=["List(List(List(Value('float32'))))", class_label],
        ),
        "lists of a fixed size": Case(
            source=pa.table({"x": pa.array(lists, pa.list_(pa.float32(), 6)), "label": pa.array(labels, pa.int8())}),
            columns=["x", "label"],
            arrow=["fixed_size_list<element: float>[6]", "int8"],
            polars=["Array(Float32, shape=(6,))", "Int8"],
            duckdb=["FLOAT[]", "TINYINT"],
            pandas=["object", "int8"],
            datasets=["List(Value('float32'), length=6)", "Value('int8')"],
        ),
        "text labels, and a column that is neither": Case(
            source=pa.table(
                {"id": range(len(labels)), "class": texts, "x": lists},
                schema=pa.schema(
                    [
                        pa.field("id", pa.int32()),
                        pa.field("class", pa.string(), nullable=False),
                        pa.field("x", pa.list_(pa.float64())),
                    ]
                ),
            ),
            required=["class"],
            columns=["id", "class", "x"],
            arrow=["int32", "string", "list<element: double>"],
            polars=["Int32", "String", "List(Float64)"],
            duckdb=["INTEGER", "VARCHAR", "DOUBLE[]"],
            pandas=["float64", "str", "object"],
            datasets=["Value('int32')", "Value('string')", "List(Value('float64'))"],
        ),
        "dictionary labels": Case(
            source=pa.table(
                {"label": pa.array(texts).dictionary_encode(), "x": pa.array(lists, pa.list_(pa.float32()))}
            ),
            columns=["label", "x"],
            arrow=["dictionary<values=string, indices=int32, ordered=0>", "list<element: float>"],
            polars=["Categorical", "List(Float32)"],
            duckdb=["VARCHAR", "FLOAT[]"],
            pandas=["category", "object"],
            datasets=["Value('string')", "List(Value('float32'))"],
        ),
        "lists of bytes, boolean labels": Case(
            source=pa.table(
                {
                    "x": pa.array([[max(0, int(60 * x + 60)) for x in row] for row in lists], pa.list_(pa.uint8())),
                    "label": [label == 1 for label in labels],
                }
            ),
            classes=2,
            columns=["x", "label"],
            arrow=["list<element: uint8>", "bool"],
            polars=["List(UInt8)", "Boolean"],
            duckdb=["UTINYINT[]", "BOOLEAN"],
            pandas=["object", "bool"],
            datasets=["List(Value('uint8'))", "Value('bool')"],
        ),
        "tensors of a fixed shape": Case(
            source=pa.table({"x": tensors, "label": pa.array(labels, pa.int16())}),
            columns=["x", "label"],
            arrow=["extension<arrow.fixed_shape_tensor[value_type=float, shape=[2,3]]>", "int16"],
            polars=["Extension('arrow.fixed_shape_tensor', Array(Float32, shape=(6,)), '{\"shape\":[2,3]}')", "Int16"],
            duckdb=["FLOAT[]", "SMALLINT"],
            pandas=["object", "int16"],
            datasets=None,
        ),
    }
