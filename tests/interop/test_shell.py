"""`distill sql` on a terminal, as someone types into it: a pseudo-terminal stands in for theirs."""

import os
import re
import select
import subprocess
import time

import pytest
from cases import DIGITS

pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
termios = pytest.importorskip("termios", reason="no pseudo-terminals here")

# Seconds until a shell that says nothing more is taken for stuck.
PATIENCE = 30
UP, TAB, ENTER, END_OF_INPUT, INTERRUPT = "\x1b[A", "\t", "\r", "\x04", "\x03"
PROMPT, CONTINUED = "distill> ", "      -> "


class Shell:
    """A shell and what it has written; without its escape sequences."""

    def __init__(self, folder, *arguments):
        self.terminal, end = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "DISTILL_HISTORY": str(folder / "history")}
        self.process = subprocess.Popen(
            [os.environ["DISTILL"], "sql", *arguments],
            stdin=end, stdout=end, stderr=end, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(end)
        self.written, self.read = "", 0

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def press(self, key):
        """Types a key that the system would take for itself (Ctrl-C, Ctrl-D), once the shell reads keys as they are: between two keys it doesn't."""
        deadline = time.monotonic() + PATIENCE
        while termios.tcgetattr(self.terminal)[3] & termios.ICANON:
            assert time.monotonic() < deadline, f"no key is read after {self.written[self.read:]!r}"
            time.sleep(0.01)
        self.type(key)

    def expect(self, text):
        """Waits until `text` is written after what was expected before; what was written until then."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.written.find(text, self.read)) < 0:
            left = deadline - time.monotonic()
            assert left > 0 and self.more(left), f"no {text!r} in {self.written[self.read:]!r}"
        between, self.read = self.written[self.read : at], at + len(text)
        return between

    def more(self, patience):
        """Whether it has written more."""
        if not select.select([self.terminal], [], [], patience)[0]:
            return False
        try:
            data = os.read(self.terminal, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return False
        self.written += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)

    def ends(self):
        """Waits for the end; the exit code."""
        while self.more(PATIENCE):
            pass
        return self.process.wait(PATIENCE)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture
def shell(tmp_path):
    shells = []

    def start(*arguments):
        shells.append(Shell(tmp_path, *arguments))
        shells[-1].expect(PROMPT)
        return shells[-1]

    yield start
    for opened in shells:
        opened.close()


def test_a_statement_of_several_lines_runs_at_its_semicolon_and_is_timed(shell):
    opened = shell()
    opened.type("SELECT 40 +" + ENTER)
    opened.expect(CONTINUED)
    opened.type("2 AS answer;" + ENTER)
    opened.expect("| answer |")
    opened.expect("| 42     |")
    opened.expect("1 row in ")
    assert re.fullmatch(r"\d+\.\d\d", opened.expect(" s"))
    opened.expect(PROMPT)


def test_arrow_up_brings_statements_back_in_this_shell_and_in_the_next(shell):
    first = shell()
    first.type("SELECT 6 * 7 AS n;" + ENTER)
    first.expect("| 42 |")
    first.expect(PROMPT)
    first.type(UP)
    first.expect("SELECT 6 * 7 AS n;")
    first.type(ENTER)
    first.expect("| 42 |")
    first.expect(PROMPT)
    first.press(END_OF_INPUT)
    assert first.ends() == 0

    second = shell()
    second.type(UP)
    second.expect("SELECT 6 * 7 AS n;")
    second.type(ENTER)
    second.expect("| 42 |")


def test_tab_completes_an_options_name_and_shows_several(shell):
    opened = shell()
    opened.type(f"EXPLAIN SELECT * FROM distill('{DIGITS}', metho" + TAB)
    opened.expect("method => ")
    opened.type("'k_means', i" + TAB)
    opened.expect("image_size =>   init =>   input =>   ipc => ")
    opened.type("p" + TAB)
    opened.expect("ipc => ")
    opened.type("3);" + ENTER)
    plan = opened.expect(" in ")
    assert "method=k_means" in plan and "ipc=3" in plan, plan


def test_an_error_is_shown_and_the_shell_goes_on(shell):
    opened = shell()
    opened.type("SELECT * FROM distill('nowhere.parquet', icp => 1);" + ENTER)
    opened.expect("unknown option 'icp' (did you mean 'ipc'?)")
    opened.expect(PROMPT)
    opened.type("SELECT 5 AS still_here;" + ENTER)
    opened.expect("| 5          |")


def test_ctrl_c_drops_what_is_typed_and_ctrl_d_leaves(shell):
    opened = shell()
    opened.type("SELECT 1" + ENTER)
    opened.expect(CONTINUED)
    opened.type("+ nonsense")
    opened.expect("+ nonsense")
    opened.press(INTERRUPT)
    opened.expect(PROMPT)
    opened.type("SELECT 2 AS two;" + ENTER)
    opened.expect("| 2   |")
    opened.expect(PROMPT)
    opened.press(END_OF_INPUT)
    assert opened.ends() == 0


def test_results_are_the_only_output_of_a_quiet_shell(shell):
    opened = shell("--format", "csv", "--quiet")
    opened.type("SELECT 1 AS a, 2 AS b;" + ENTER)
    opened.expect("a,b\r\n1,2\r\n")
    opened.expect(PROMPT)
    assert "rows in" not in opened.written and "for help" not in opened.written
