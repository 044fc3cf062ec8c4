"""Rows are read back unchanged at any time; a full disk is an error."""

import errno
import os

import numpy as np
import pytest

from autoseg.fingerprint.row_file import RowFile
from autoseg.support.errors import AutosegError


@pytest.mark.parametrize("number", [0, 1, 63, 200])
def test_rows_are_read_back_unchanged(tmp_path, number):
    rows = np.random.default_rng(number).normal(0, 1, (number, 7)).astype(np.float32)
    with RowFile(7, np.float32, tmp_path) as file:
        for place, row in enumerate(rows):
            file.append(row)
            if place % 50 == 10:  # Reading in between does not disturb later writes.
                assert (file[[place, 3]] == rows[[place, 3]]).all()
        assert len(file) == number and (file[:] == rows).all()
        some = list(range(number))[::-3]
        assert (file[some] == rows[some]).all()
        assert (file[number // 2 : number + 9] == rows[number // 2 :]).all()
        assert not list(tmp_path.iterdir())  # The file has no name.


def test_full_disk_raises(tmp_path, monkeypatch):
    with RowFile(4, np.uint8, tmp_path) as file:

        class Full:
            def write(self, data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file._stream.close()
        monkeypatch.setattr(file, "_stream", Full())
        with pytest.raises(AutosegError, match="disk is full"):
            file.append(np.zeros(4, np.uint8))
        monkeypatch.undo()
