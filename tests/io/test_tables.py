"""Tables are written whole, and read back as they were."""

import pytest

from jaxreg.errors import InputError
from jaxreg.io.tables import read_table, write_table


def test_a_written_table_has_a_line_a_row_and_reads_back(tmp_path):
    path = tmp_path / "t.tsv"
    write_table(path, ("index", "name"), [(2, "White-Matter"), (17, 'called "x"')])
    assert path.read_bytes().startswith(b"index\tname\n2\tWhite-Matter\n17\t")
    assert read_table(path, ("index",)) == [
        {"index": "2", "name": "White-Matter"},
        {"index": "17", "name": 'called "x"'},
    ]


def test_the_old_table_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "t.tsv"
    write_table(path, ("name",), [("a",)])

    def rows():
        yield ("b",)
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        write_table(path, ("name",), rows())
    assert path.read_text() == "name\na\n"
    assert [p.name for p in tmp_path.iterdir()] == ["t.tsv"]
