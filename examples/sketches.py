"""Reads stored sketches with pyarrow alone: what they are of, and how far two files of them are apart.

    distill sql -c "COPY (SELECT label, distill_sketch_agg(image, 'extractors=4') AS s FROM 'monday.parquet' GROUP BY label)
                    TO 'monday-sketches.parquet' STORED AS PARQUET"
    python examples/sketches.py monday-sketches.parquet tuesday-sketches.parquet

Wants pyarrow and numpy. The second number of a class is what chance alone stays below, as distill_distance says it.
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def read(path):
    """Label and sketch of each class."""
    return {row["label"]: row["s"] for row in pq.read_table(path).to_pylist()}


def characteristic(sketch):
    """The mean of exp(i t.f) over the rows, `[extractors, frequencies]`."""
    sums = [np.array(e["cos"]) + 1j * np.array(e["sin"]) for e in sketch["extractors"]]
    return np.array(sums) / sketch["cos_scale"] / sketch["count"]


def distance(a, b):
    """The squared distance less what the numbers of rows add, and what chance stays below (docs/sql.md, Sketches)."""
    assert a["format"] == b["format"] == "datafusion-distill/sketch/1"
    assert (a["pool"], a["frequency_seed"]) == (b["pool"], b["frequency_seed"]), "different pools don't compare"
    phi_a, phi_b = characteristic(a), characteristic(b)
    bias = sum((1 - abs(phi) ** 2) / (s["count"] - 1) for phi, s in ((phi_a, a), (phi_b, b)))
    both = (a["count"] * phi_a + b["count"] * phi_b) / (a["count"] + b["count"])
    spread = np.std(abs(both) ** 2) * sum(1 / (s["count"] - 1) for s in (a, b))
    return np.mean(abs(phi_a - phi_b) ** 2 - bias), min(spread, np.mean(bias)) * 9.827566


first, second = map(read, sys.argv[1:3])
some = next(iter(first.values()))
schema = pa.ipc.read_schema(pa.BufferReader(some["source_schema"]))
print(f"{some['label']} ({some['label_type']}) of a source with columns {', '.join(schema.names)}; {some['numerics']}")
for label in sorted(first.keys() & second.keys()):
    a, b = first[label], second[label]
    apart, chance = distance(a, b)
    print(f"class {label}: {a['count']} and {b['count']} rows, distance {apart:.6f}, chance {chance:.6f}")
