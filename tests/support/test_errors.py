from __future__ import annotations

import pickle

from autoseg.support.errors import AutosegError, SeveralProblems


def test_problem_and_remedy_both_stand_in_the_message() -> None:
    text = str(AutosegError("a.png is broken", "fetch it again"))
    assert "a.png is broken" in text and "fetch it again" in text


def test_long_lists_are_cut_but_kept() -> None:
    error = SeveralProblems("faults:", [f"case {i}" for i in range(60)], "fix them")
    assert len(error.problems) == 60
    assert "... and 10 more" in str(error) and "case 59" not in str(error)


def test_errors_cross_process_boundaries_whole() -> None:
    for error in (AutosegError("a", "b"), SeveralProblems("h", ["x", "y"], "r")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
