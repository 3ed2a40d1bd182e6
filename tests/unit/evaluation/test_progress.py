"""One bar counts all tasks of a run, each by its work."""

import pytest

from small_doge.evaluation.lm import EngineLM
from small_doge.evaluation.progress import estimate_work
from small_doge.evaluation.running import plan_suite, run_plan


NAMES = ["openbookqa", "triviaqa"]


def run(lm, data, folder, names=NAMES):
    run_plan(lm, plan_suite("base", data, names, shots=[0]), {}, folder, lambda _: None)


def test_one_bar_counts_every_request_of_all_tasks(rigged, data, tmp_path, bars, capsys):
    lm = EngineLM(rigged(), batch_size=2, show_progress=True)
    run(lm, data, tmp_path)
    (bar,) = bars
    assert bar.titles == ["openbookqa, 0-shot (1 of 2)", "triviaqa, 0-shot (2 of 2)"]
    assert len(bar.steps) == 16 + 4 and sum(bar.steps) == pytest.approx(bar.total)
    shown = capsys.readouterr().err
    assert lm.report is None and "scoring" not in shown and "it/s" not in shown


def test_what_an_earlier_run_finished_is_no_work(rigged, data, tmp_path, bars):
    run(EngineLM(rigged()), data, tmp_path, NAMES[:1])
    run(EngineLM(rigged()), data, tmp_path)
    assert bars[1].titles == ["triviaqa, 0-shot (1 of 1)"] and sum(bars[1].steps) == pytest.approx(bars[1].total)


def test_longer_texts_and_longer_answers_are_more_work(data):
    tasks = plan_suite("base", data, ["arc", "triviaqa"], shots=[0, 1]).tasks
    assert estimate_work(tasks["arc_easy", 1], 2048) > estimate_work(tasks["arc_easy", 0], 2048)
    assert estimate_work(tasks["triviaqa", 0], 2048) > 4 * estimate_work(tasks["arc_easy", 0], 2048)
    assert estimate_work(tasks["arc_easy", 1], 1) == len(tasks["arc_easy", 1].rows)  # what is cut is not read
