"""Tables as text and CSV."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from loralab.tables import csv_writer


@given(st.lists(st.lists(st.text(st.sampled_from('a,"\r\n;\t ')), min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_text_is_read_back_from_csv(rows: list[list[str]]) -> None:
    for delimiter in ",;\t":
        file = io.StringIO(newline="")
        csv_writer(file, delimiter).writerows(rows)
        assert [*csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter)] == rows
        assert file.getvalue().endswith("\n")
        assert not file.getvalue().endswith("\r\n")
