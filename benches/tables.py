"""A table, test rows and small files made from the table flow in; a Markdown table of what models learn flows out.

    python benches/tables.py TRAIN TEST [NAME=FILE[,FILE...]]... --exclude instance_weight

A multilayer perceptron, logistic regression (scikit-learn) and gradient-boosted trees (LightGBM) are trained on each
file, on TRAIN itself and, for each size of a small file, on random rows of TRAIN: as many in all, and as many of each
class. Several files of a name are of several seeds of one method. The columns are accuracy, balanced accuracy and the
area under the ROC curve (a class against the rest, mean over classes) on TEST, in percent: mean and standard deviation
over the seeds of files, of random rows and of the perceptron's weights. The first two depend on the classes' shares in
the file that is trained on: compare them with random rows of each class, or look at the area.

All files are prepared alike. Texts, booleans and dictionaries are categories, with a column for each value that TRAIN
has, NULL among them; another value is none of these. Numbers: NULL becomes the median, with a column that says so where
TRAIN has NULLs; then they are standardised, and cut at 10 deviations. Medians, means and deviations are those of the
file that is trained on; a number that is the same in all its rows is left out. Which values a category has, and which
numbers can be NULL, is all that a small file is told about TRAIN.

Wants numpy, scipy, pyarrow, scikit-learn and lightgbm: `tests/interop/run.sh` installs them under the target directory.
"""

import argparse
import statistics
import sys
import time
import warnings

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

# Updates of the perceptron, whatever the number of rows, within bounds of its epochs. Chosen by 20 to 10,000 random
# rows of the census example's `fit`, tested on its `validation`: more of either overfits.
UPDATES, FEWEST_EPOCHS, MOST_EPOCHS, BATCH = 1_000, 4, 100, 256
# Standardised numbers beyond it are cut: a small file's deviation may be a hundredth of the test rows'.
CUT = 10.0


class Layout:
    """What all files have in common: the feature columns, their kinds, the categories' values and the classes."""

    def __init__(self, train: pa.Table, label: str, excluded: list[str]):
        if label not in train.column_names:
            sys.exit(f"error: no column '{label}'; there are {', '.join(train.column_names)}: choose one with --label")
        self.label = label
        self.classes = sorted(train[label].drop_null().unique().to_pylist())
        self.numbers, self.nullable, self.categories = [], [], {}
        for field in train.schema:
            if field.name == label or field.name in excluded:
                continue
            if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type):
                self.numbers.append(field.name)
                if train[field.name].null_count:
                    self.nullable.append(field.name)
            else:
                self.categories[field.name] = sorted(
                    texts(train[field.name]).unique().to_pylist(), key=lambda text: (text is None, text)
                )

    def numeric(self, table: pa.Table) -> np.ndarray:
        """The numbers, rows x columns, NULL as NaN."""
        columns = [pc.cast(table[name], pa.float64(), safe=False).to_numpy() for name in self.numbers]
        return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))

    def labels(self, table: pa.Table) -> np.ndarray:
        """The index of each row's class."""
        index = pc.index_in(table[self.label], pa.array(self.classes, table[self.label].type))
        if index.null_count:
            sys.exit(
                f"error: column '{self.label}' has NULL or a class that the training table lacks: leave such rows out"
            )
        return index.to_numpy().astype(np.int64)


class Preparation:
    """Medians, means and deviations of one training file; turns tables into what models take."""

    def __init__(self, layout: Layout, table: pa.Table):
        self.layout = layout
        numbers = layout.numeric(table)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column of NULLs has no median
            self.medians = np.nan_to_num(np.nanmedian(numbers, axis=0))
        filled = np.where(np.isnan(numbers), self.medians, numbers)
        self.means, deviations = filled.mean(axis=0), filled.std(axis=0)
        self.scales = np.divide(
            1.0, deviations, out=np.zeros_like(deviations), where=deviations > 1e-12 * (1 + abs(self.means))
        )

    def __call__(self, table: pa.Table) -> sparse.csr_matrix:
        """Rows x (numbers, indicators of NULL, categories' values), f32."""
        layout = self.layout
        numbers = layout.numeric(table)
        filled = np.where(np.isnan(numbers), self.medians, numbers)
        blocks = [
            np.clip((filled - self.means) * self.scales, -CUT, CUT),
            np.isnan(numbers[:, [layout.numbers.index(name) for name in layout.nullable]]),
        ]
        blocks = [sparse.csr_matrix(block.astype(np.float32)) for block in blocks]
        for name, values in layout.categories.items():
            index = pc.index_in(texts(table[name]), pa.array(values, pa.string())).fill_null(-1).to_numpy()
            rows = np.flatnonzero(index >= 0)
            ones = np.ones(len(rows), np.float32)
            blocks.append(sparse.csr_matrix((ones, (rows, index[rows])), shape=(table.num_rows, len(values))))
        return sparse.hstack(blocks, format="csr", dtype=np.float32)


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A category's values as text, so that a dictionary, a text and a large text of two files are the same."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.string())


def perceptron(rows: int, seed: int, threads: int):
    batch = min(BATCH, rows)
    epochs = min(max(UPDATES * batch // rows, FEWEST_EPOCHS), MOST_EPOCHS)
    return MLPClassifier((64, 64), batch_size=batch, max_iter=epochs, n_iter_no_change=epochs + 1, random_state=seed)


def logistic(rows: int, seed: int, threads: int):
    return LogisticRegression(max_iter=300)


def trees(rows: int, seed: int, threads: int):
    # A leaf of LightGBM's usual 20 rows would forbid any split of a small file.
    leaf = min(max(rows // 20, 1), 20)
    return lightgbm.LGBMClassifier(
        n_estimators=200, min_child_samples=leaf, min_data_in_bin=1 if leaf < 3 else 3,
        n_jobs=threads, deterministic=True, force_row_wise=True, verbose=-1,
    )  # fmt: skip


# Name, constructor, and whether a seed changes what is learnt.
MODELS = [("perceptron", perceptron, True), ("logistic", logistic, False), ("trees", trees, False)]


class Arena:
    """The test rows; trains on tables and keeps what came out."""

    def __init__(self, layout: Layout, test: pa.Table, weight: str | None, threads: int):
        self.layout, self.test, self.weight, self.threads = layout, test, weight, threads
        self.truth = layout.labels(test)

    def run(self, table: pa.Table, seed: int, model) -> tuple[float, float, float]:
        """Accuracy, balanced accuracy and area under the curve on the test rows."""
        prepare, labels = Preparation(self.layout, table), self.layout.labels(table)
        weighted = self.weight is not None and self.weight in table.column_names
        options = {"sample_weight": table[self.weight].to_numpy()} if weighted else {}
        if weighted:
            options["sample_weight"] = options["sample_weight"] / options["sample_weight"].mean()
        shares = np.zeros((len(self.truth), len(self.layout.classes)))
        if len(set(labels)) == 1:  # nothing to learn: that class
            shares[:, labels[0]] = 1
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                fitted = model(table.num_rows, seed, self.threads).fit(prepare(table), labels, **options)
                shares[:, fitted.classes_] = fitted.predict_proba(prepare(self.test))
        predicted = shares.argmax(axis=1)
        tested = np.unique(self.truth)
        area = statistics.mean(roc_auc_score(self.truth == label, shares[:, label]) for label in tested)
        return accuracy_score(self.truth, predicted), balanced_accuracy_score(self.truth, predicted), area

    def compare(self, name: str, tables: list[pa.Table], seeds: int, models) -> None:
        """Prints a line for each model. The i-th table has the i-th seed; if seeds are more, tables come again."""
        for title, model, seeded in models:
            started = time.perf_counter()
            runs = range(max(seeds, len(tables)) if seeded else len(tables))
            results = [self.run(tables[i % len(tables)], i, model) for i in runs]
            seconds = (time.perf_counter() - started) / len(results)
            cells = [
                f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
                if len(results) > 1
                else f"{100 * values[0]:.1f}"
                for values in zip(*results)
            ]
            rows = " / ".join(sorted({f"{table.num_rows:,}" for table in tables}))
            counts = np.mean([self.counts(table) for table in tables], axis=0)
            counts = (
                " / ".join(f"{count:,.0f}" for count in counts)
                if len(counts) <= 3
                else f"{counts.min():,.0f} to {counts.max():,.0f}"
            )
            print(
                f"| {name} | {rows} | {counts} | {title} | {len(results)} | {' | '.join(cells)} | {seconds:.1f} |",
                flush=True,
            )

    def counts(self, table: pa.Table) -> tuple[int, ...]:
        return tuple(np.bincount(self.layout.labels(table), minlength=len(self.layout.classes)).tolist())


def random_rows(labels: np.ndarray, counts, seed: int) -> np.ndarray:
    """Rows without repetition, in their order: `counts` in all, or of each class."""
    draw = np.random.default_rng(seed)
    if isinstance(counts, int):
        chosen = draw.choice(len(labels), counts, replace=False)
    else:
        groups = [np.flatnonzero(labels == label) for label in range(len(counts))]
        chosen = np.concatenate(
            [draw.choice(rows, min(count, len(rows)), replace=False) for rows, count in zip(groups, counts)]
        )
    return np.sort(chosen)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", metavar="TRAIN", help="the full table, a Parquet file")
    parser.add_argument("test", metavar="TEST", help="the rows to test on")
    parser.add_argument("small", metavar="NAME=FILE[,FILE...]", nargs="*", help="small files of a method, one a seed")
    parser.add_argument("--label", default="label", help="the label column (default: label)")
    parser.add_argument("--exclude", default="", metavar="A,B", help="columns that are no features")
    parser.add_argument(
        "--weight", metavar="COLUMN", help="a column of sample weights, used in files that have it; no feature"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds of random rows and of the perceptron (default: 3)")
    parser.add_argument("--random", default="", metavar="N,M", help="more sizes of random rows")
    parser.add_argument(
        "--full-rows", type=int, metavar="N", help="train the full table's models on N random rows of it"
    )
    parser.add_argument("--full-seeds", type=int, default=1, help="perceptrons trained on the full table (default: 1)")
    parser.add_argument("--no-full", action="store_true", help="don't train on the full table")
    parser.add_argument("--models", default=",".join(name for name, _, _ in MODELS), metavar="A,B", help="%(default)s")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of LightGBM and of matrix products (default: 1)"
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    asked = arguments(words)
    names = [name for name, _, _ in MODELS]
    unknown = [name for name in asked.models.split(",") if name not in names]
    if unknown:
        sys.exit(f"error: no model '{unknown[0]}': choose from {', '.join(names)}")
    models = [model for model in MODELS if model[0] in asked.models.split(",")]
    # The perceptron's small products gain nothing from more, and on a busy machine lose much.
    threadpool_limits(asked.threads)
    train, test = pq.read_table(asked.train), pq.read_table(asked.test)
    layout = Layout(train, asked.label, [name for name in [*asked.exclude.split(","), asked.weight] if name])
    arena = Arena(layout, test, asked.weight, asked.threads)
    small = {}
    for argument in asked.small:
        name, equals, files = argument.rpartition("=")
        if not equals:
            sys.exit(f"error: '{argument}' isn't NAME=FILE[,FILE...]")
        small[name] = [pq.read_table(file) for file in files.split(",")]
        for table in small[name]:
            lacking = [
                column
                for column in [asked.label, *layout.numbers, *layout.categories]
                if column not in table.column_names
            ]
            if lacking:
                sys.exit(
                    f"error: a file of '{name}' lacks the column '{lacking[0]}' of {asked.train}: "
                    "leave it out with --exclude"
                )

    print(
        f"{asked.train}, {train.num_rows:,} rows, tested on {asked.test}, {test.num_rows:,} rows; "
        f"{len(layout.numbers)} numbers and {len(layout.categories)} categories; "
        f"LightGBM {lightgbm.__version__}; {asked.seeds} seeds"
    )
    print(
        "\n| trained on | rows | of each class | model | runs | accuracy, % | balanced accuracy, % | AUC, % | s a run |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    # What needs no training, to read the others by: the commonest class of the training rows.
    shares = np.bincount(arena.truth, minlength=len(layout.classes)) / len(arena.truth)
    right, balanced = shares[np.argmax(arena.counts(train))], 1 / np.count_nonzero(shares)
    print(f"| nothing | 0 |  | the commonest class |  | {100 * right:.1f} | {100 * balanced:.1f} | 50.0 |  |")
    if not asked.no_full:
        full = train
        if asked.full_rows and asked.full_rows < train.num_rows:
            full = train.take(random_rows(layout.labels(train), asked.full_rows, 0))
        arena.compare("all rows" if full is train else "random rows for all", [full], asked.full_seeds, models)
    for name, tables in small.items():
        arena.compare(name, tables, asked.seeds, models)
    labels = layout.labels(train)
    sizes = {table.num_rows for tables in small.values() for table in tables} | {
        int(size) for size in asked.random.split(",") if size
    }
    for size in sorted(min(size, train.num_rows) for size in sizes):
        drawn = [train.take(random_rows(labels, size, seed)) for seed in range(asked.seeds)]
        arena.compare("random rows", drawn, asked.seeds, models)
    for counts in sorted({arena.counts(table) for tables in small.values() for table in tables}):
        drawn = [train.take(random_rows(labels, counts, seed)) for seed in range(asked.seeds)]
        arena.compare("random rows of each class", drawn, asked.seeds, models)


if __name__ == "__main__":
    main()
