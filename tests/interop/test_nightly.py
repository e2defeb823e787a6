"""The nightly job sketches what is new, notices what changed, publishes at once, and tells drift from chance."""

import csv
import os
import random
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import DIGITS, ROOT

JOB = ROOT / "examples/nightly"
DAYS, ROWS, DRIFT = 4, 300, 4
DAY = ["2026-08-01", "2026-08-02", "2026-08-03", "2026-08-04"]


def made(distill, table, state):
    """A table in one folder a day, the last with two classes mixed up, and a state in which no night has been yet."""
    # The digits come writer by writer: days of them in that order drift.
    rows, order = pq.read_table(DIGITS), list(range(1438))
    random.Random(0).shuffle(order)
    source = distill.folder / "shuffled.parquet"
    pq.write_table(rows.take(order), source)
    subprocess.run([JOB / "table.sh", source, table, str(DAYS), str(ROWS), str(DRIFT)], check=True)
    state.mkdir()
    quick = ["--extractors", 4, "--width", 16, "--depth", 2, "--seed", 1]
    distill("pool", "create", table, "-o", state / "pool.safetensors", *quick)
    (state / "settings.sql").write_text("SET distill.ipc = 2; SET distill.frequencies = 128; SET distill.steps = 3;\n")


class Nights:
    """A table and the job's state."""

    def __init__(self, folder):
        self.table, self.state = folder / "table", folder / "state"

    def run(self, **environment):
        return subprocess.run(
            [JOB / "night.sh", self.table, self.state],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def night(self, **environment):
        """The lines that a night prints, those of drift aside."""
        job = self.run(**environment)
        assert job.returncode == 0, job.stderr
        return [line for line in job.stdout.splitlines() if not line.startswith("drift: ")]

    def file(self, day, name="part-0.parquet"):
        return self.table / f"day={day}" / name

    def rows(self):
        """Rows in the published sum."""
        return sum(s["count"] for s in pq.read_table(self.state / "current/sum.parquet")["s"].to_pylist())

    def small(self):
        return pq.read_table(self.state / "current/small.parquet").to_pylist()

    def drifts(self):
        """Day and class of what is published as drift."""
        with open(self.state / "current/drift.csv") as file:
            return {(row["day"], int(row["class"])) for row in csv.DictReader(file) if row["drifts"] == "true"}

    def seen(self):
        """Contents and times of all files of the state that a night keeps."""
        files = [f for f in self.state.rglob("*") if f.is_file() and f.parent != self.state / "tmp"]
        return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in files}


@pytest.fixture(scope="module")
def first(distill, tmp_path_factory):
    """After the first night, and what that printed."""
    nights = Nights(tmp_path_factory.mktemp("nights"))
    made(distill, nights.table, nights.state)
    return nights, nights.night()


@pytest.fixture
def nights(first, tmp_path):
    """A copy of it, after a night that found nothing new."""
    for name in ["table", "state"]:
        shutil.copytree(getattr(first[0], name), tmp_path / name, symlinks=True)
    copy = Nights(tmp_path)
    assert copy.night()[0].startswith("nothing has changed since releases/")
    return copy


def test_the_first_night_sketches_all_days_and_distils_their_union(first):
    nights, said = first
    assert said[:-1] == [f"{day}: sketched" for day in DAY]
    assert said[-1].startswith("published 4 days as releases/")
    assert nights.rows() == DAYS * ROWS
    small = nights.small()
    assert [row["label"] for row in small] == [label for label in range(10) for _ in range(2)]
    assert (nights.state / "current/days.txt").read_text().split() == DAY


def test_the_same_night_twice_changes_nothing(nights):
    before = nights.seen()
    for verify in ["", "1"]:
        assert nights.night(VERIFY=verify)[0].startswith("nothing has changed")
        assert nights.seen() == before
    # Other times of the same rows are noted, and no sketch is made for them.
    os.utime(nights.file(DAY[1]), (1, 1))
    assert nights.night()[0].startswith("nothing has changed")
    changed = {f.name for f, seen in nights.seen().items() if seen != before[f]}
    assert changed == {f"{DAY[1]}.files"}


def test_a_late_file_is_picked_up_and_other_days_are_left_alone(nights):
    before, old = nights.seen(), os.readlink(nights.state / "current")
    late = pq.read_table(DIGITS).slice(DAYS * ROWS, 100)
    pq.write_table(late, nights.file(DAY[1], "late.parquet"))
    said = nights.night()
    assert said[:-1] == [f"{DAY[1]}: sketched"]
    assert nights.rows() == DAYS * ROWS + 100
    after = nights.seen()
    same = nights.state / "sketches" / f"{DAY[2]}.parquet"
    assert after[same] == before[same]
    # Who is still reading the release before finds it as it was.
    assert os.readlink(nights.state / "current") != old
    assert {f: s for f, s in before.items() if old in str(f)} == {f: s for f, s in after.items() if old in str(f)}
    nights.file(DAY[1], "late.parquet").unlink()
    assert nights.night()[:-1] == [f"{DAY[1]}: sketched"]
    assert os.readlink(nights.state / "current") == old


def test_a_changed_file_is_noticed_though_its_size_and_time_are_the_same(nights):
    file, sizes = nights.file(DAY[0]), set()
    rows = pq.read_table(file)
    for labels in [rows["label"], pa.chunked_array([rows["label"].to_pylist()[::-1]])]:
        table = rows.set_column(rows.schema.get_field_index("label"), "label", labels)
        pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
        os.utime(file, (1, 1))
        sizes.add(file.stat().st_size)
        assert nights.night()[:-1] == [f"{DAY[0]}: sketched"]
    assert len(sizes) == 1
    # The day's labels are wrong now: all days after it are far from it, and it has none before it.
    assert {day for day, _ in nights.drifts()} >= {DAY[1]}


def test_a_deleted_day_disappears_as_if_it_had_never_been_there(nights, distill, tmp_path):
    shutil.rmtree(nights.table / f"day={DAY[1]}")
    assert nights.night()[0] == f"{DAY[1]}: deleted"
    assert nights.rows() == (DAYS - 1) * ROWS
    assert not [f for f in nights.state.rglob(f"{DAY[1]}*")]
    fresh = Nights(tmp_path / "fresh")
    fresh.state.mkdir(parents=True)
    for name in ["pool.safetensors", "settings.sql"]:
        shutil.copy(nights.state / name, fresh.state / name)
    shutil.copytree(nights.table, fresh.table)
    fresh.night()
    assert fresh.small() == nights.small()
    assert fresh.drifts() == nights.drifts()


def test_a_table_that_is_not_there_deletes_nothing(nights):
    before = nights.seen()
    shutil.rmtree(nights.table)
    nights.table.mkdir()
    job = nights.run()
    assert job.returncode != 0 and "no day in" in job.stderr
    assert nights.seen() == before


def test_a_night_that_fails_leaves_what_is_published_and_the_next_one_goes_on(nights):
    before, old = nights.small(), os.readlink(nights.state / "current")
    shutil.copytree(nights.table / f"day={DAY[0]}", nights.table / "day=2026-08-05")
    nights.table.joinpath("day=2026-08-06").mkdir()
    nights.file("2026-08-06").write_bytes(b"PAR1 and no more")
    job = nights.run()
    assert job.returncode != 0 and "2026-08-06" in job.stderr
    assert job.stdout.splitlines() == ["2026-08-05: sketched"]
    assert os.readlink(nights.state / "current") == old and nights.small() == before
    shutil.rmtree(nights.table / "day=2026-08-06")
    assert nights.night()[0].startswith("published 5 days")


def test_other_settings_make_all_sketches_again(nights):
    with open(nights.state / "settings.sql", "a") as file:
        file.write("SET distill.reservoir_per_class = 32;\n")
    assert nights.night()[:-1] == [f"{day}: sketched" for day in DAY]


def test_a_mix_up_of_two_classes_is_found_on_its_day_in_both_and_nowhere_else(first):
    nights, _ = first
    assert nights.drifts() == {(DAY[DRIFT - 1], 2), (DAY[DRIFT - 1], 4)}


def test_quiet_days_stay_quiet_over_a_hundred_random_splits(distill, first):
    rows = pq.read_table(DIGITS)
    parts = []
    for split in range(100):
        order = list(range(rows.num_rows))
        random.Random(split).shuffle(order)
        # A day of a hundred rows against the seven before it, as the job compares them.
        part = rows.take(order[:800])
        part = part.append_column("split", pa.array([split] * 800, pa.int32()))
        parts.append(part.append_column("new", pa.array([i < 100 for i in range(800)])))
    source = distill.folder / "splits.parquet"
    pq.write_table(pa.concat_tables(parts), source)
    output = distill.folder / "split-distances.parquet"
    pool = first[0].state / "pool.safetensors"
    distill(
        *["sql", "-c", f"SET distill.pool_file = '{pool}'; SET distill.frequencies = 128; SET distill.init = 'noise'"],
        *["-c", "SET distill.label = 'label'"],
        *["-c", f"""CREATE VIEW s AS SELECT split, new, label, distill_sketch_agg(image) AS s FROM '{source}' GROUP BY split, new, label;
            COPY (SELECT a.split, a.label, distill_distance(a.s, b.s) AS d
                  FROM (SELECT * FROM s WHERE new) a JOIN (SELECT * FROM s WHERE NOT new) b ON a.split = b.split AND a.label = b.label)
            TO '{output}' STORED AS PARQUET"""],
    )  # fmt: skip
    found = [row["d"] for row in pq.read_table(output).to_pylist() if row["d"]]
    assert len(found) > 950
    assert not [d for d in found if d["distance"] > d["chance"]]
    # And not because chance were out of reach.
    assert max(d["distance"] / d["chance"] for d in found) > 0.2
