"""A file of pictures flows in; the seconds of a whole pass and of PyTorch's bare forward flow out, timed in turns. `pass.sh` calls it.

    pass.py FILE THREADS ROUNDS

The command's own pass is timed inside its process's life, start-up included. PyTorch runs batches of 256 over as many random pictures of Fashion-MNIST's
shape, in its faster layout of the two; decoding and scaling aren't counted for it.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

import pyarrow.parquet
import torch

from peer import ConvNet

QUERY = """SELECT sum(distill_describe(s)['rows']) AS rows FROM (
    SELECT label, distill_sketch_agg(image, 'extractors=1 width=128 frequencies=2048 moments=none init=noise threads={threads}') AS s
    FROM '{file}' GROUP BY label)"""


def main():
    file, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rows = pyarrow.parquet.read_metadata(file).num_rows
    torch.set_num_threads(threads)
    query = QUERY.format(file=file, threads=threads)

    def ours():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        job = subprocess.run([os.environ["DISTILL"], "sql", "-c", query], check=True, capture_output=True, text=True)
        took = time.perf_counter() - start
        if str(rows) not in job.stdout:
            sys.exit(f"the pass didn't sketch all {rows} rows: {job.stdout}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return took, busy / took

    def theirs(layout):
        net = ConvNet(1, 128).to(memory_format=layout).requires_grad_(False)
        pictures = torch.randn(rows, 1, 28, 28).to(memory_format=layout)
        with torch.inference_mode():
            net(pictures[:256])
            start = time.perf_counter()
            for batch in pictures.split(256):
                net(batch)
            return time.perf_counter() - start

    turns = [(theirs(torch.contiguous_format), theirs(torch.channels_last), *ours()) for _ in range(rounds)]
    plain, last, took, busy = (statistics.median(column) for column in zip(*turns))
    ratio = min(plain, last) / took
    print(f"| pass, {rows} rows, {threads} threads | PyTorch's bare forward s | channels_last s | ours, the whole pass s | PyTorch / ours | ours, threads busy |")
    print("|---|---|---|---|---|---|")
    print(f"| | {plain:.1f} | {last:.1f} | {took:.1f} | **{ratio:.2f}** | {busy:.2f} |")
    sys.exit(ratio < 2.0)


if __name__ == "__main__":
    main()
