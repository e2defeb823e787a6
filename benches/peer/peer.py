"""Our kernels' program flows in; the table of PyTorch's time against ours flows out, both timed in turns in one run.

    peer.py PROGRAM [--only TEXT] [--rounds N] [--json FILE]

PROGRAM is the bench target `peer` of cargo. Each case runs in rounds of three turns: PyTorch as it is, PyTorch with channels_last, ours; a turn is one
untimed run and then timed ones for a fifth of a second. The median of all timed runs counts, and of PyTorch's two the better one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

# Seconds that a turn lasts about, and seconds between turns.
TURN, PAUSE = 0.2, 0.1


class ConvNet(nn.Module):
    """ConvNet-3 of the field: the first convolution is padded by 3 for one-channel pictures. Instance norm removes a bias, so there is none."""

    def __init__(self, channels, width):
        super().__init__()
        layers = []
        for n in range(3):
            padding = 3 if n == 0 and channels == 1 else 1
            layers += [
                nn.Conv2d(channels if n == 0 else width, width, 3, padding=padding, bias=False),
                nn.GroupNorm(width, width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*layers)

    def forward(self, x):
        return self.features(x).flatten(1)


def forward(case, layout):
    net = ConvNet(case["channels"], case["width"]).to(memory_format=layout)
    x = pictures(case, layout)

    def step():
        with torch.inference_mode():
            net(x)

    return step


def input_gradient(case, layout):
    net = ConvNet(case["channels"], case["width"]).to(memory_format=layout).requires_grad_(False)
    x = pictures(case, layout).requires_grad_()

    def step():
        x.grad = None
        net(x).square().sum().backward()

    return step


def training_step(case, layout):
    net = nn.Sequential(ConvNet(case["channels"], case["width"]), nn.Linear(16 * case["width"], 10, bias=False))
    net = net.to(memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, labels = pictures(case, layout), torch.arange(case["rows"]) % 10

    def step():
        sgd.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        sgd.step()

    return step


def pictures(case, layout):
    return torch.randn(case["rows"], case["channels"], case["side"], case["side"]).to(memory_format=layout)


def characteristic(case, _):
    phi, frequencies = F.normalize(torch.randn(case["rows"], 2048)), torch.randn(2048, 4096)

    def step():
        with torch.inference_mode():
            angles = phi @ frequencies
            angles.cos().sum(0), angles.sin().sum(0)

    return step


def characteristic_gradient(case, _):
    phi = F.normalize(torch.randn(case["rows"], 2048)).requires_grad_()
    frequencies, weights = torch.randn(2048, 4096), torch.randn(2, 4096)

    def step():
        phi.grad = None
        angles = phi @ frequencies
        (weights[0] * angles.cos().sum(0) + weights[1] * angles.sin().sum(0)).sum().backward()

    return step


def second_moments(case, _):
    phi = torch.randn(case["rows"], 1024)

    def step():
        with torch.inference_mode():
            phi.T @ phi

    return step


STEPS = {
    "forward": forward,
    "input gradient": input_gradient,
    "training step": training_step,
    "characteristic function": characteristic,
    "characteristic function, gradient": characteristic_gradient,
    "second moments": second_moments,
}
PICTURES = {"forward", "input gradient", "training step"}


def cases():
    """Each case, with the ratio that is aimed at."""
    for width in (128, 64, 32):
        for channels, side in ((1, 28), (3, 32)):
            net = {"channels": channels, "side": side, "width": width}
            for threads in (1, 2):
                yield {"case": "forward", "rows": 256, "threads": threads, **net}, 4.0
            for rows in (10, 100, 500):
                for threads in (1, 2):
                    yield {"case": "input gradient", "rows": rows, "threads": threads, **net}, 2.8
            for rows in (100, 256):
                for threads in (1, 2):
                    yield {"case": "training step", "rows": rows, "threads": threads, **net}, 2.2
    for threads in (1, 2):
        yield {"case": "characteristic function", "rows": 256, "threads": threads}, 1.1
        yield {"case": "characteristic function, gradient", "rows": 256, "threads": threads}, 1.0
        yield {"case": "second moments", "rows": 1024, "threads": threads}, 1.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--only", default="", help="run the cases whose description contains this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="also write the measurements here, a line each")
    options = parser.parse_args()

    # candle's own threads, which element-wise operations wake, wait in a loop and would take a core from the kernels.
    alone = {**os.environ, "CANDLE_NUM_THREADS": "1"}
    ours = subprocess.Popen([options.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone)
    record = open(options.json, "w") if options.json else None
    print(f"PyTorch {torch.__version__}", flush=True)
    print("| case | PyTorch ms | channels_last ms | ours ms | PyTorch / ours | aim |")
    print("|---|---|---|---|---|---|")
    for case, aim in cases():
        name = describe(case)
        if options.only not in name:
            continue
        torch.set_num_threads(case["threads"])
        layouts = [torch.contiguous_format] + [torch.channels_last] * (case["case"] in PICTURES)
        steps = [STEPS[case["case"]](case, layout) for layout in layouts]
        for step in steps:
            step()
        started = time.perf_counter()
        steps[0]()
        repeat = max(1, min(50, round(TURN / (time.perf_counter() - started))))
        times = [[] for _ in range(len(steps) + 1)]
        for _ in range(options.rounds):
            for step, seconds in zip(steps, times):
                # Threads of the one before may still wait in a loop.
                time.sleep(PAUSE)
                step()
                for _ in range(repeat):
                    start = time.perf_counter()
                    step()
                    seconds.append(time.perf_counter() - start)
            time.sleep(PAUSE)
            ours.stdin.write(json.dumps({**case, "repeat": repeat}) + "\n")
            ours.stdin.flush()
            answer = ours.stdout.readline()
            if not answer:
                sys.exit(f"{options.program} ended at: {name}")
            times[-1] += json.loads(answer)["seconds"]
        medians = [1000 * statistics.median(seconds) for seconds in times]
        theirs = min(medians[:-1])
        shown = [f"{m:.1f}" for m in medians[:-1]] + ["-"] * (2 - len(steps))
        print(f"| {name} | {' | '.join(shown)} | {medians[-1]:.1f} | **{theirs / medians[-1]:.2f}** | {aim} |", flush=True)
        if record:
            record.write(json.dumps({**case, "torch_ms": medians[:-1], "ours_ms": medians[-1], "aim": aim}) + "\n")
            record.flush()


def describe(case):
    net = f", width {case['width']}, {case['channels']}x{case['side']}x{case['side']}" if case.get("width") else ""
    return f"{case['case']}{net}, {case['rows']} rows, {case['threads']} thread{'s' * (case['threads'] > 1)}"


if __name__ == "__main__":
    main()
