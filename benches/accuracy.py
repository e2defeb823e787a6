#!/usr/bin/env python3
"""Training rows and test rows flow in; how accurate fresh networks are that learn from a few rows made or chosen of them flows out, as a Markdown table.

    benches/accuracy.py TRAIN TEST [--ipc 1 10] [--seeds 0 1 2] [--sets hard soft mosaic ...] [--out FOLDER]

The sets:
    hard, soft                distilled plain rows, with hard or with learned soft labels
    mosaic, mosaic-soft       the same, four pictures stored in one (`--mosaic 2`)
    random, herding, k_means, k_center
                              as many real rows, chosen anew for each network (k_means: medoids)
    random-mosaic             as many stored pictures, of four real rows each
    full                      all of TRAIN, for `--full-epochs` epochs

All are trained on and tested by `distill evaluate`, with the same options, after the last epoch. Every report is a line of FOLDER/results.jsonl, with the job's own report and
options; what is there already isn't done again, so that a run that was stopped goes on. `above` is the first set's lead over a row in points and, in brackets, in pooled
standard errors.

Wants nothing but Python 3.9 and the command `distill`: $DISTILL, or the one that cargo builds.
"""

import argparse
import json
import os
import pathlib
import platform
import shlex
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


def distill(*arguments):
    command = os.environ.get("DISTILL")
    manifest = ROOT / "Cargo.toml"
    start = [command] if command else ["cargo", "run", "--release", "--quiet", "--locked", "--manifest-path", str(manifest), "--"]
    done = subprocess.run([*start, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(['distill', *map(str, arguments)])} failed")
    return done.stdout


def reports(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def without(arguments, option):
    """`arguments` less `option` and its value."""
    at = arguments.index(option) if option in arguments else len(arguments)
    return arguments[:at] + arguments[at + 2 :]


def machine():
    processor = platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{processor}, {os.cpu_count()} cores; {distill('--version').strip()}"


class Results:
    """The lines of results.jsonl, by what was asked for."""

    def __init__(self, folder):
        self.path = folder / "results.jsonl"
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
        self.lines[self.key(line)] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def measure(given, folder, results, asked, ipc, seed):
    """All sets of one ipc and one seed that aren't there yet."""
    missing = [name for name in given.sets if not results.find(asked, ipc, name, seed)]
    baselines = [name for name in missing if name in BASELINES]
    common = ["--test", given.test, "--seed", seed, "--json", *shlex.split(given.evaluate_options)]
    for name in missing:
        if name in BASELINES:
            continue
        job = None
        if name == "full":
            if results.find(asked, None, name, seed):
                continue
            report = reports(distill("evaluate", given.train, *without(common, "--epochs"), "--epochs", given.full_epochs))[0]
            results.add({"asked": asked, "ipc": None, "set": name, "seed": seed, "job": None, "report": report})
            continue
        small = folder / f"{name}-ipc-{ipc}-seed-{seed}.parquet"
        run = ["run", given.train, "-o", small, "--overwrite", "--ipc", ipc, "--seed", seed, "--json", *MADE[name]]
        # They say how rows are made; real ones aren't.
        options = [] if name == "random-mosaic" else shlex.split(given.run_options)
        job = reports(distill(*run, *options))[0]
        beside = ["--baseline", ",".join(baselines), "--from", given.train, "--ipc", ipc] if baselines else []
        found = reports(distill("evaluate", small, *common, *beside))
        results.add({"asked": asked, "ipc": ipc, "set": name, "seed": seed, "job": job, "report": found[0]})
        for baseline, report in zip(baselines, found[1:]):
            results.add({"asked": asked, "ipc": ipc, "set": baseline, "seed": seed, "job": None, "report": report})
        baselines = []
    if baselines:
        # No set is made beside which they could be measured: one real row of each class is.
        small = folder / "one-row.parquet"
        distill("run", given.train, "-o", small, "--overwrite", "--ipc", 1, "--method", "random")
        beside = ["--baseline", ",".join(baselines), "--from", given.train, "--ipc", ipc]
        for baseline, report in zip(baselines, reports(distill("evaluate", small, *common, *beside))[1:]):
            results.add({"asked": asked, "ipc": ipc, "set": baseline, "seed": seed, "job": None, "report": report})


def row(lines, first):
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
    size = f"{report['bytes']:,}" if report.get("bytes") else ""
    figures = [f"{100 * statistics.mean(accuracies):.1f}", f"{100 * spread(accuracies):.1f}"]
    return [report.get("stored_rows", report["rows"]), report["rows"], size, len(accuracies), *figures, above, *cost]


def table(given, results, asked):
    heads = ["ipc", "set", "stored rows", "decoded rows", "bytes", "networks", "accuracy, %", "deviation", "above", "CPU-s", "wall s", "peak MB"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for ipc in given.ipc:
        first = None
        for name in given.sets:
            at = None if name == "full" else ipc
            lines = [results.find(asked, at, name, seed) for seed in given.seeds]
            lines = [line for line in lines if line]
            if lines:
                first = first or lines
                print("| " + " | ".join(map(str, [ipc, name, *row(lines, first)])) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one distillation and its networks for each")
    parser.add_argument("--sets", nargs="+", default=["hard", "random", "herding", "k_means"], choices=[*MADE, *BASELINES, "full"])
    parser.add_argument("--run-options", default="", help="more options of `distill run` for the sets that are made, in one text")
    parser.add_argument("--evaluate-options", default="", help="more options of `distill evaluate`, in one text")
    parser.add_argument("--full-epochs", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, help="where files and reports stay (default: a folder that is removed)")
    given = parser.parse_args()
    scratch = None if given.out else tempfile.TemporaryDirectory()
    folder = given.out or pathlib.Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: getattr(given, name) for name in ("train", "test", "run_options", "evaluate_options", "full_epochs")}
    results = Results(folder)
    for seed in given.seeds:
        for ipc in given.ipc:
            measure(given, folder, results, asked, ipc, seed)
    options = f"options of run: {given.run_options or 'none'}; of evaluate: {given.evaluate_options or 'none'}"
    print(f"{machine()}\n\n{given.train}, tested on {given.test}; seeds {', '.join(map(str, given.seeds))}; {options}\n")
    table(given, results, asked)


if __name__ == "__main__":
    main()
