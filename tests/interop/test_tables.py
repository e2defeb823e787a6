"""`benches/tables.py` tells good rows from bad ones, prepares all files alike and repeats itself."""

import importlib.util
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import ROOT

SCRIPT = ROOT / "benches/tables.py"


def people(rows: int, seed: int) -> pa.Table:
    """A number with NULLs and a category that tell the class, one of each that don't, and a weight."""
    draw = np.random.default_rng(seed)
    label = (draw.random(rows) < 0.25).astype(np.int64)
    number = draw.normal(label * 2.0, 1.0)
    return pa.table(
        {
            "number": pa.array(number, mask=draw.random(rows) < 0.1),
            "noise": draw.integers(0, 1000, rows),
            "job": np.where(draw.random(rows) < 0.4, np.array(["cook", "mason"])[label], "none"),
            "town": pa.array(draw.choice(["A", "B", "C"], rows)).dictionary_encode(),
            "weight": np.where(label == 1, 20.0, 1.0),
            "label": label,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    train = people(2_000, 0)
    pq.write_table(train, folder / "train.parquet")
    pq.write_table(people(500, 1), folder / "test.parquet")
    for seed in range(2):
        rows = np.sort(np.random.default_rng(seed).choice(train.num_rows, 100, replace=False))
        small = train.take(rows)
        pq.write_table(small, folder / f"rows-{seed}.parquet")
        shuffled = np.random.default_rng(seed).permutation(small["label"].to_numpy())
        wrong = small.set_column(small.column_names.index("label"), "label", pa.array(shuffled))
        pq.write_table(wrong, folder / f"wrong-{seed}.parquet")
    return folder


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(tables, folder, monkeypatch, capsys):
    """Runs the script; the cells of each line, by what was trained on and the model, but for the time."""

    def run(*arguments) -> dict[tuple[str, str], list[str]]:
        monkeypatch.chdir(folder)
        tables.main(["train.parquet", "test.parquet", *arguments])
        printed = capsys.readouterr().out.splitlines()
        lines = [line.strip("| ").split(" | ") for line in printed if line.startswith("|") and "---" not in line]
        return {(cells[0], cells[3]): cells[1:-1] for cells in lines[2:]}

    return run


def area(cells: list[str]) -> float:
    return float(cells[6].split(" ")[0])


def test_all_rows_beat_a_hundred_and_wrong_labels_are_worth_nothing(table):
    small = ["rows=rows-0.parquet,rows-1.parquet", "wrong=wrong-0.parquet,wrong-1.parquet"]
    lines = table(*small, "--exclude", "weight")
    for model in ("perceptron", "logistic", "trees"):
        everything, rows, wrong = (area(lines[name, model]) for name in ("all rows", "rows", "wrong"))
        assert everything > rows > 85 > 75 > wrong, lines
    assert lines["random rows", "perceptron"][0] == "100" and lines["random rows", "perceptron"][3] == "3"
    # Two files, of other class counts each: random rows of both.
    assert ("random rows of each class", "trees") in lines


def test_random_rows_are_like_rows_that_pyarrow_drew(table):
    lines = table("rows=rows-0.parquet,rows-1.parquet", "--exclude", "weight", "--no-full", "--models", "logistic")
    assert ("all rows", "logistic") not in lines
    assert abs(area(lines["rows", "logistic"]) - area(lines["random rows", "logistic"])) < 5, lines


def test_the_same_call_gives_the_same_figures(table):
    call = ["rows=rows-0.parquet", "--exclude", "weight", "--random", "50", "--full-rows", "500"]
    first = table(*call)
    assert first == table(*call)
    assert first["random rows for all", "trees"][0] == "500"


def test_weights_change_what_is_learnt_and_are_no_feature(table):
    without = table("--exclude", "weight", "--models", "logistic")
    weighted = table("--weight", "weight", "--models", "logistic")
    # Twenty times the weight on the rarer class: more of it is found, less of all is right.
    balanced = [float(lines["all rows", "logistic"][5]) for lines in (without, weighted)]
    assert balanced[1] > balanced[0] + 1
    assert area(weighted["all rows", "logistic"]) < 99.9, "the weight tells the class"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--label", "klass"], "no column 'klass'"),
        (["--models", "oracle"], "no model 'oracle': choose from perceptron, logistic, trees"),
        (["rows-0.parquet"], "isn't NAME=FILE"),
        (["x=narrow.parquet"], "lacks the column 'town'"),
    ],
)
def test_what_does_not_fit_is_named(table, folder, arguments, message):
    pq.write_table(people(20, 2).drop_columns(["town"]), folder / "narrow.parquet")
    with pytest.raises(SystemExit, match=re.escape(message)):
        table(*arguments, "--exclude", "weight")


def test_a_small_file_is_prepared_by_itself_but_for_the_categories(tables):
    train = pa.table({"n": [1.0, None, 3.0, 500.0], "c": ["x", "y", None, "z"], "label": ["a", "b", "a", "b"]})
    layout = tables.Layout(train, "label", [])
    prepare = tables.Preparation(layout, pa.table({"n": [1.0, None, 3.0, 2.0], "c": ["x"] * 4, "label": ["a"] * 4}))
    rows = prepare(pa.table({"n": [2.0, None, 1e9], "c": ["z", None, "new"], "label": ["a", "a", "b"]})).toarray()
    # Median and mean 2: the number, whether it is NULL, then x, y, z, NULL. 1e9 is cut, "new" is none of the values.
    assert rows.tolist() == [[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [10, 0, 0, 0, 0, 0]]
    assert layout.labels(train).tolist() == [0, 1, 0, 1]


def test_a_number_that_never_changes_says_nothing(tables):
    train = pa.table({"n": [1.0, 2.0], "label": [0, 1]})
    prepare = tables.Preparation(tables.Layout(train, "label", []), pa.table({"n": [7.0, 7.0], "label": [0, 1]}))
    assert prepare(train).toarray().tolist() == [[0], [0]]


def test_dictionary_texts_and_large_texts_are_one_kind_of_category(tables):
    text = pa.array(["x", "y", "x"])
    assert {
        str(tables.texts(pa.chunked_array([column])))
        for column in (text, text.dictionary_encode(), text.cast(pa.large_string()))
    } == {str(pa.chunked_array([text]))}
