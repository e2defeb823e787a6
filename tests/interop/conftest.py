"""The command `distill` ($DISTILL) and small jobs of it, as fixtures."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from cases import IPC, cases

# Small networks and few steps: what is written is tested here, not how good it is.
QUICK = ["--steps", "5", "--extractors", "2", "--width", "8", "--threads", "1"]
CASES = cases()


class Command:
    """The command `distill` in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, *arguments: object) -> str:
        """What it prints; a failure of it is a failure of the test, with its message."""
        job = subprocess.run(
            [os.environ["DISTILL"], *map(str, arguments)], cwd=self.folder, capture_output=True, text=True
        )
        assert job.returncode == 0, job.stderr
        return job.stdout

    def run(self, source: object, name: str, *options: object) -> Path:
        """Distils `source` quickly into a file called `name`."""
        output = self.folder / f"{name}.parquet"
        self("run", source, "-o", output, "--ipc", IPC, *QUICK, "--quiet", *options)
        return output

    def json(self, *arguments: object) -> list[dict]:
        """The objects that it prints, one a line."""
        return [json.loads(line) for line in self(*arguments).splitlines()]


@pytest.fixture(scope="session")
def distill(tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("distill"))


@pytest.fixture(scope="session", params=CASES, ids=lambda name: name.replace(" ", "-"))
def job(request, distill):
    """A case, the file it was distilled from and the file that came out."""
    case, name = CASES[request.param], request.param.replace(" ", "-")
    source = case.write(distill.folder / f"{name}-source.parquet")
    return case, source, distill.run(source, name, *case.options)
