"""`distill evaluate --json` says what a script needs, in fields that agree with each other and with the files."""

import statistics

import pytest
from cases import DIGITS, DIGITS_TEST, IPC

REPEATS = 3
QUICK = ["--network", "linear", "--epochs", 40, "--repeats", REPEATS, "--augment", "none", "--threads", 1, "--json"]
BASELINES = ["--baseline", "random,herding", "--from", DIGITS]


@pytest.fixture(scope="module")
def small(distill):
    return distill.run(DIGITS, "evaluated")


@pytest.fixture(scope="module")
def reports(distill, small):
    return distill.json("evaluate", small, "--test", DIGITS_TEST, *BASELINES, *QUICK)


def test_the_file_comes_first_and_its_baselines_after_it(reports, small):
    assert [report["name"] for report in reports] == [str(small), "random", "herding"]
    assert {report["network"] for report in reports} == {"linear"}


def test_rows_and_bytes_are_those_of_what_was_trained_on(reports, small):
    for report in reports:
        assert report["rows"] == 10 * IPC
        assert report["rows_per_class"] == [IPC, IPC], "fewest and most"
    assert reports[0]["bytes"] == small.stat().st_size
    assert not reports[1].get("bytes") and not reports[2].get("bytes"), "baselines are no files"


def test_accuracies_are_shares_and_the_statistics_are_theirs(reports):
    for report in reports:
        accuracies = report["accuracies"]
        assert len(accuracies) == len(report["losses"]) == REPEATS
        assert all(0 <= accuracy <= 1 for accuracy in accuracies)
        # A share of 359 test rows.
        assert all((accuracy * 359) == pytest.approx(round(accuracy * 359), abs=1e-3) for accuracy in accuracies)
        assert report["mean"] == pytest.approx(statistics.mean(accuracies))
        assert report["deviation"] == pytest.approx(statistics.stdev(accuracies))
        assert report["standard_error"] == pytest.approx(report["deviation"] / REPEATS**0.5)
        assert report["cpu_seconds"] > 0 and report["warnings"] == []
    assert reports[0]["mean"] > 0.5, "ten classes: chance is 0.1"


def test_a_seed_gives_the_same_report_but_for_the_time(distill, small, reports):
    again = distill.json("evaluate", small, "--test", DIGITS_TEST, *BASELINES, *QUICK)
    other = distill.json("evaluate", small, "--test", DIGITS_TEST, *BASELINES, *QUICK, "--seed", 1)

    def without_time(reports):
        return [{name: value for name, value in report.items() if name != "cpu_seconds"} for report in reports]

    assert without_time(again) == without_time(reports)
    assert without_time(other) != without_time(reports)


def test_a_class_that_training_rows_lack_is_a_warning_in_the_report(distill):
    query = f"(SELECT * FROM '{DIGITS}' WHERE label < 9)"
    (report,) = distill.json("evaluate", query, "--test", DIGITS_TEST, *QUICK)
    assert report["rows"] == 1438 - 144 and any("'9'" in warning for warning in report["warnings"]), report
