"""Rows come back as they were put there, whenever they are asked for; a full disk is said."""

import errno
import os

import numpy as np
import pytest

from autoseg.fingerprint.shelf import Shelf
from autoseg.support.errors import AutosegError


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 200])
def test_rows_come_back_as_they_were_put(tmp_path, number):
    rows = np.random.default_rng(number).normal(0, 1, (number, 7)).astype(np.float32)
    with Shelf(7, np.float32, tmp_path) as shelf:
        for place, row in enumerate(rows):
            shelf.add(row)
            if place % 50 == 10:  # Asking between does not disturb what follows.
                assert (shelf.rows([place, 3]) == rows[[place, 3]]).all()
        assert len(shelf) == number
        assert (shelf.rows(range(number)) == rows).all()
        some = list(range(number))[::-3]
        assert (shelf.rows(some) == rows[some]).all()
        room = np.zeros((number + 2, 7), np.float32)
        found = shelf.rows(range(number // 2, number), room)
        assert (found == rows[number // 2 :]).all() and (number < 2 or np.shares_memory(found, room))
        assert not list(tmp_path.iterdir())  # The file has no name.


def test_a_full_disk_is_said_plainly(tmp_path, monkeypatch):
    with Shelf(4, np.uint8, tmp_path) as shelf:

        class Full:
            def seek(self, place):
                return place

            def write(self, data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        shelf._stream.close()
        monkeypatch.setattr(shelf, "_stream", Full())
        shelf.add(np.zeros(4, np.uint8))
        with pytest.raises(AutosegError, match="disk is full"):
            shelf.rows([0])
        monkeypatch.undo()
