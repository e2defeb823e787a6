#!/usr/bin/env python3
"""Training rows and test rows flow in; how accurate fresh networks are that learn from a few rows made or chosen of them flows out, as a Markdown table.

    benches/accuracy.py TRAIN TEST [--ipc 1 10] [--sets all] [--protocol full] [--out FOLDER]
    benches/accuracy.py TRAIN TEST --ipc 1 10 --curve unroll=0,100,200,400
    benches/accuracy.py FIT VALIDATION --ipc 10 --rows 12000 --ablation benches/ablation.txt --run-options "--unroll 0"

The sets:
    hard, soft                distilled plain rows, with hard or with learned soft labels
    mosaic, mosaic-soft       the same, four pictures stored in one (`--mosaic 2`), in some of the rows
    random, herding, k_means, k_center
                              as many real rows, chosen anew for each network (k_means: medoids)
    random-mosaic             as many stored pictures, some of four real rows each, the others of one
    full                      all of TRAIN, for `--full-epochs` epochs
    all                       these, but for k_center

The protocols: `short`, one distillation (seed 0) and three networks of 300 epochs; `full`, three distillations (seeds 0, 1 and 2) and three networks of 1,000
epochs for each. --seeds and what --evaluate-options says of --epochs and --repeats come first.

--curve makes the distilled sets once for each value of an option of `distill run`: accuracy over CPU time. --ablation makes them once for each line of a file,
which has such options, `-` alone none; what comes behind # is left out. Where --run-options names an option too, the setting's value counts. A setting that fails
is told, left out of the table, and tried again by the next run.

All are trained on and tested by `distill evaluate`, with the same options, after the last epoch. Every report is a line of FOLDER/results.jsonl, with the job's own report and
options; what is there already isn't done again, so that a run that was stopped goes on, and one with other --evaluate-options takes the files that were made; lines
of another machine, version, commit or (with $DISTILL) file are told of, rows that are made as well as networks. `above` is the first set's lead over a row in points and, in brackets, in pooled standard errors. The distillation's CPU-seconds, wall seconds and memory are the job's own, decoding and extraction
included; `training CPU-s` is one network's training and test, and a choice of real rows with it. Bytes are the file's; with ~ those of as many rows of TRAIN.

Wants nothing but Python 3.9 and the command `distill`: $DISTILL, or the one that cargo builds.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASELINES = ["random", "herding", "k_center", "k_means"]
MADE = {
    "hard": [],
    "soft": ["--label-kind", "soft"],
    "mosaic": ["--mosaic", "2"],
    "mosaic-soft": ["--mosaic", "2", "--label-kind", "soft"],
    "random-mosaic": ["--mosaic", "2", "--method", "random"],
}
ALL = ["hard", "soft", "mosaic", "mosaic-soft", "random", "random-mosaic", "herding", "k_means", "full"]
SEEDS = {"short": [0], "full": [0, 1, 2]}
EPOCHS = {"short": [], "full": ["--epochs", "1000", "--repeats", "3"]}


class Failed(Exception):
    """A command that failed; it has said why."""


def distill(*arguments):
    command = os.environ.get("DISTILL")
    manifest = ROOT / "Cargo.toml"
    start = [command] if command else ["cargo", "run", "--release", "--quiet", "--locked", "--manifest-path", str(manifest), "--"]
    done = subprocess.run([*start, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(['distill', *map(str, arguments)])} failed")
    return done.stdout


def reports(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def merged(*lists):
    """One list of options of several: where two name the same, the later one's values."""
    found = {}
    for arguments in lists:
        own, name = {}, ""
        for argument in arguments:
            if argument.startswith("--"):
                name, joined, value = argument.partition("=")
                own[name] = [value] if joined else []
            elif name:
                own[name].append(argument)
            else:
                sys.exit(f"'{argument}' is no option: they begin with --, as --steps 500 does")
        found.update(own)
    return [part for name, values in found.items() for part in [name, *values]]


def machine():
    processor = platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{processor}, {os.cpu_count()} cores; {distill('--version').strip()}{build()}"


def build():
    """Which build the command is: of what commit of this tree, or for one from elsewhere the beginning of its file's SHA-256. Nothing where the tree is no checkout."""
    command = os.environ.get("DISTILL")
    if command:
        file = shutil.which(command)
        return f", SHA-256 {hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()[:10]}" if file else ""
    try:
        told = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        return ""
    return f" of {told.stdout.strip()}" if told.returncode == 0 else ""


class Results:
    """The lines of results.jsonl, by what was asked for."""

    def __init__(self, folder, by):
        self.path = folder / "results.jsonl"
        self.by = by
        self.lines = {}
        if self.path.exists():
            text = self.path.read_text()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                # A line that a stop has cut off: the next one would be appended to it.
                self.path.write_text(whole)
            for line in whole.splitlines():
                found = json.loads(line)
                self.lines[self.key(found)] = found

    @staticmethod
    def key(line):
        return json.dumps([line[name] for name in ("asked", "ipc", "set", "seed")], sort_keys=True)

    def find(self, asked, ipc, name, seed):
        return self.lines.get(self.key({"asked": asked, "ipc": ipc, "set": name, "seed": seed}))

    def add(self, line):
        line = {**line, "by": self.by}
        self.lines[self.key(line)] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def settings(given):
    """The options of each setting of --curve and --ablation, as texts; one empty text without either."""
    texts = []
    for curve in given.curve:
        option, found, values = curve.partition("=")
        if not found or not option or not values:
            sys.exit(f"--curve {curve}: expected an option and its values, as unroll=0,100,200")
        texts += [f"--{option.removeprefix('--')} {value}" for value in values.split(",")]
    if given.ablation:
        lines = [line.split("#")[0].strip() for line in given.ablation.read_text().splitlines()]
        texts += ["" if line == "-" else line for line in lines if line]
    texts = list(dict.fromkeys(texts)) or [""]
    for text in texts:
        # What can't be read is told before hours of work.
        merged(shlex.split(text))
    return texts


def sets(given):
    """The name of each set and the options that it is made with; None for those that aren't made."""
    found = {}
    for name in given.sets:
        if name == "random-mosaic":
            # Options say how rows are made; real ones aren't.
            found[name] = MADE[name]
        elif name in MADE:
            for text in given.settings:
                found[f"{name} {text}".strip()] = merged(MADE[name], shlex.split(given.run_options), shlex.split(text))
        else:
            found[name] = None
    return found


def source(given, folder):
    """What rows are made and chosen of: TRAIN, or a file of its first rows."""
    if given.rows is None:
        return given.train
    path = folder / f"first-{given.rows}-{digest([given.train])}.parquet"
    if not path.exists():
        table = given.train if given.train.startswith("(") else "'" + given.train.replace("'", "''") + "'"
        # One thread reads a file from its beginning.
        part = path.with_suffix(".part.parquet")
        distill("sql", "--quiet", "--threads", 1, "-c", f"COPY (SELECT * FROM {table} LIMIT {given.rows}) TO '{part}' STORED AS PARQUET")
        part.rename(path)
    return str(path)


def digest(parts):
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:10]


def made(folder, by, name, train, ipc, seed, options):
    """The file of a set and its job's report: those of an earlier run if there are any."""
    asked = [train, "--ipc", ipc, "--seed", seed, *options]
    stem = folder / f"{name.split()[0]}-ipc-{ipc}-seed-{seed}-{digest(asked)}"
    small, told = stem.with_suffix(".parquet"), stem.with_suffix(".json")
    if not (small.exists() and told.exists()):
        told.unlink(missing_ok=True)
        told.write_text(json.dumps({**json.loads(distill("run", *asked, "-o", small, "--overwrite", "--json")), "by": by}))
    return small, reports(told.read_text())[0]


def measure(given, folder, results, asked, ipc, seed, failures):
    """All sets of one ipc and one seed that aren't there yet; settings that can't be made are added to `failures`."""
    train = source(given, folder)
    missing = {name: options for name, options in sets(given).items() if not results.find(asked, at(ipc, name), name, seed)}
    baselines = [name for name in missing if name in BASELINES]
    evaluation = merged(EPOCHS[given.protocol], shlex.split(given.evaluate_options))
    common = ["--test", given.test, "--seed", seed, "--json"]

    def add(name, job, report):
        results.add({"asked": asked, "ipc": at(ipc, name), "set": name, "seed": seed, "job": job, "report": report})

    for name, options in missing.items():
        if name in BASELINES:
            continue
        if name == "full":
            evaluated = distill("evaluate", train, *common, *merged(evaluation, ["--epochs", str(given.full_epochs)]))
            add(name, None, reports(evaluated)[0])
            continue
        try:
            small, job = made(folder, results.by, name, train, ipc, seed, options)
        except Failed as failure:
            if not (given.curve or given.ablation):
                raise
            # The other settings don't hang on it.
            failures.append(str(failure))
            print(failure, file=sys.stderr)
            continue
        beside = ["--baseline", ",".join(baselines), "--from", train, "--ipc", ipc] if baselines else []
        found = reports(distill("evaluate", small, *common, *evaluation, *beside))
        add(name, job, found[0])
        for baseline, report in zip(baselines, found[1:]):
            add(baseline, None, report)
        baselines = []
    if baselines:
        # No set is made beside which they could be measured: one real row of each class is.
        small, _ = made(folder, results.by, "one-row", train, 1, seed, ["--method", "random"])
        beside = ["--baseline", ",".join(baselines), "--from", train, "--ipc", ipc]
        for baseline, report in zip(baselines, reports(distill("evaluate", small, *common, *evaluation, *beside))[1:]):
            add(baseline, None, report)


def at(ipc, name):
    """The number of rows a class that a set is kept under: all rows are as many for any."""
    return None if name == "full" else ipc


def row(lines, first, bytes_per_row):
    """Cells of one set: `lines` are those of its seeds, `first` those of the set that is compared with it."""
    accuracies = [a for line in lines for a in line["report"]["accuracies"]]

    def spread(values):
        return statistics.stdev(values) if len(values) > 1 else 0.0

    above = ""
    if first is not lines:
        ours = [a for line in first for a in line["report"]["accuracies"]]
        lead = statistics.mean(ours) - statistics.mean(accuracies)
        pooled = (spread(ours) ** 2 / len(ours) + spread(accuracies) ** 2 / len(accuracies)) ** 0.5
        above = f"{100 * lead:+.1f}" + (f" ({lead / pooled:.1f})" if pooled > 0 else "")
    jobs = [line["job"] for line in lines if line["job"]]
    cost = ["", "", ""]
    if jobs:
        cost = [
            f"{statistics.mean(job['cpu_seconds']['total'] for job in jobs):.1f}",
            f"{statistics.mean(job['wall_seconds'] for job in jobs):.1f}",
            f"{max(job['peak_memory_bytes'] for job in jobs) / 1e6:.0f}",
        ]
    report = lines[0]["report"]
    stored = report.get("stored_rows", report["rows"])
    sizes = [line["report"]["bytes"] for line in lines if line["report"].get("bytes")]
    size = f"{statistics.mean(sizes):,.0f}" if sizes else f"~{bytes_per_row * stored:,.0f}" if bytes_per_row else ""
    training = sum(line["report"]["cpu_seconds"] for line in lines) / len(accuracies)
    figures = [f"{100 * statistics.mean(accuracies):.1f}", f"{100 * spread(accuracies):.1f}"]
    return [stored, report["rows"], size, len(accuracies), *figures, above, *cost, f"{training:.1f}"]


def table(given, folder, results, asked):
    heads = ["ipc", "set", "stored rows", "decoded rows", "bytes", "networks", "accuracy, %", "deviation", "above"]
    heads += ["CPU-s", "wall s", "peak MB", "training CPU-s"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    train = pathlib.Path(source(given, folder))
    read = [line["job"]["rows_in"] for line in results.lines.values() if line["asked"] == asked and line["job"]]
    bytes_per_row = train.stat().st_size / read[0] if read and read[0] and train.is_file() else None
    others = set()
    for ipc in given.ipc:
        first = None
        for name in sets(given):
            lines = [results.find(asked, at(ipc, name), name, seed) for seed in given.seeds]
            lines = [line for line in lines if line]
            if lines:
                first = first or lines
                parts = [part for line in lines for part in (line, line["job"]) if part]
                others.update(part.get("by", "a version that didn't say") for part in parts)
                shown = name.replace(" ", " `", 1) + "`" if " " in name else name
                print("| " + " | ".join(map(str, [ipc, shown, *row(lines, first, bytes_per_row)])) + " |")
    others.discard(results.by)
    if others:
        print(f"\nSome lines are of earlier runs, by {'; by '.join(sorted(others))}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--protocol", choices=SEEDS, default="short")
    parser.add_argument("--seeds", type=int, nargs="+", help="one distillation and its networks for each (default: the protocol's)")
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=[*MADE, *BASELINES, "full", "all"],
        help="default: hard random herding k_means; with --curve or --ablation hard alone",
    )
    parser.add_argument("--curve", nargs="+", default=[], metavar="OPTION=A,B", help="values of an option of `distill run`: the distilled sets once for each")
    parser.add_argument("--ablation", type=pathlib.Path, metavar="FILE", help="a file with options of `distill run` in each line: the distilled sets once for each")
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N rows of TRAIN")
    parser.add_argument("--run-options", default="", help="more options of `distill run` for the sets that are made, in one text")
    parser.add_argument("--evaluate-options", default="", help="more options of `distill evaluate`, in one text")
    parser.add_argument("--full-epochs", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, help="where files and reports stay (default: a folder that is removed)")
    given = parser.parse_args()
    given.seeds = given.seeds or SEEDS[given.protocol]
    given.sets = given.sets or (["hard"] if given.curve or given.ablation else ["hard", "random", "herding", "k_means"])
    if "all" in given.sets:
        given.sets = ALL + [name for name in given.sets if name not in [*ALL, "all"]]
    given.settings = settings(given)
    sets(given)
    scratch = None if given.out else tempfile.TemporaryDirectory()
    folder = given.out or pathlib.Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: getattr(given, name) for name in ("train", "test", "run_options", "evaluate_options", "full_epochs")}
    # What is left at its default isn't there: lines of earlier versions have no such names.
    asked.update({name: getattr(given, name) for name, usual in (("protocol", "short"), ("rows", None)) if getattr(given, name) != usual})
    results = Results(folder, machine())
    failures = []
    for seed in given.seeds:
        for ipc in given.ipc:
            measure(given, folder, results, asked, ipc, seed, failures)
    options = f"options of run: {given.run_options or 'none'}; of evaluate: {shlex.join(merged(EPOCHS[given.protocol], shlex.split(given.evaluate_options))) or 'none'}"
    part = f", first {given.rows:,} rows" if given.rows else ""
    print(f"{results.by}\n\n{given.train}{part}, tested on {given.test}; seeds {', '.join(map(str, given.seeds))}; {options}\n")
    table(given, folder, results, asked)
    if failures:
        sys.exit(f"{len(failures)} of the settings failed")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
