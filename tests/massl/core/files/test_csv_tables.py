"""CSV files as people's programs write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from massl.core.errors import MasslError
from massl.core.files.csv_tables import csv_text, is_formula, read_csv, read_paths

SPECIAL = st.sampled_from('\r\n\t,;\x27" é=+-@')  # and any other, so that these come often
TEXT = st.text(SPECIAL | st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["path{}label{}other", " Label {}PATH{}x", "PATH{}a{}Label"]),
)
def test_what_a_spreadsheet_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], between: str, encoding: str, head: str
) -> None:
    names = head.format(between, between).split(between)
    places = [next(at for at, name in enumerate(names) if name.strip().lower() == one) for one in ("path", "label")]
    with io.StringIO(newline="") as text:
        writer = csv.writer(text, delimiter=between)
        writer.writerow(names)
        for row in rows:
            values = ["more"] * 3
            for place, value in zip(places, row, strict=True):
                values[place] = value
            writer.writerow(values)
        file = tmp_path_factory.getbasetemp() / "table.csv"
        file.write_bytes(text.getvalue().encode(encoding))
    assert [(row["path"], row["label"]) for _, row in read_csv(file, ("path", "label"))] == rows


def test_rows_know_the_lines_on_which_they_begin(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('path,label\n"a\nb.jpg",x\n\nc.jpg,y\n')
    assert [line for line, _ in read_csv(tmp_path / "a.csv", ("path", "label"))] == [2, 5]


@pytest.mark.parametrize("rows", [2_000, 20_000])  # of the latter a field would hold more than the csv module takes
def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path, rows: int) -> None:
    (tmp_path / "a.csv").write_text('path,label\na.jpg,x\n"b.jpg,x\n' + "c.jpg,x\n" * rows)
    with pytest.raises(MasslError, match=r"a.csv, line 3: a quote is opened and never closed$"):
        read_csv(tmp_path / "a.csv", ("path", "label"))


def test_a_value_that_is_too_long_is_no_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\na.jpg," + "x" * 200_000 + "\n")
    with pytest.raises(MasslError, match=r"a.csv, line 2: a value is far too long$"):
        read_csv(tmp_path / "a.csv", ("path", "label"))


def test_names_of_files_may_be_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,label\ncaf\xe9.jpg,x\n")
    assert read_csv(tmp_path / "a.csv", ("path",))[0][1]["path"] == "caf\udce9.jpg"
    (tmp_path / "b.csv").write_bytes(b"\xff\xfep")
    with pytest.raises(MasslError, match="save it as CSV in UTF-8"):
        read_csv(tmp_path / "b.csv", ("path",))


def test_two_columns_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,Label\na.jpg,x,y\n")
    with pytest.raises(MasslError, match=r"a.csv has two columns called label; rename one of them"):
        read_csv(tmp_path / "a.csv", ("path", "label"))
    (tmp_path / "b.csv").write_text("path,note,note\na.jpg,x,y\n")
    assert read_csv(tmp_path / "b.csv", ("path",))[0][1]["path"] == "a.jpg"


def test_a_value_that_is_cut_in_two_is_not_halved_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\na.jpg,x\nb.jpg,oxeye, white\n")
    with pytest.raises(
        MasslError, match=r"a.csv, line 3 has more values than the first line has columns; .* in quotes$"
    ):
        read_csv(tmp_path / "a.csv", ("path", "label"))
    (tmp_path / "b.csv").write_text("path,label\na.jpg,x,,\n")  # as spreadsheets leave them
    assert read_csv(tmp_path / "b.csv", ("path",))[0][1]["label"] == "x"


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    file = tmp_path_factory.getbasetemp() / "written.csv"
    file.write_bytes(csv_text(("path", "label"), rows).encode())
    assert [(row["path"], row["label"]) for _, row in read_csv(file, ("path", "label"))] == rows


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_no_cell_that_is_written_starts_a_formula(rows: list[tuple[str, str]]) -> None:
    for row in list(csv.reader(io.StringIO(csv_text(("path", "label"), rows), newline="")))[1:]:
        for cell in row:
            assert cell[:1] not in tuple("=+-@\t\r\n\uff1d") or cell.lstrip("+-").replace(".", "").isdigit()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("''=1", "'" * 3 + "=1"),
        ("'quoted'", "'quoted'"),
        ("a=1", "a=1"),
        ("-1", "-1"),
        ("+0.5e-3", "+0.5e-3"),
        ("", ""),
    ],
)
def test_what_would_be_a_formula_gets_an_apostrophe_and_is_read_without(
    tmp_path: Path, value: str, written: str
) -> None:
    text = csv_text(("path", "label"), [(value, "x")])
    assert next(csv.DictReader(io.StringIO(text, newline="")))["path"] == written
    (tmp_path / "a.csv").write_text(text, newline="")
    assert read_csv(tmp_path / "a.csv", ("path",))[0][1]["path"] == value
    assert is_formula(value) == (value != written)


def test_numbers_are_written_as_they_are() -> None:
    assert csv_text(("a", "b"), [(-1, -0.5)]) == "a,b\n-1,-0.5\n"


@pytest.mark.parametrize("told", ["sep=;\r\n", '"sep=;"\n', "SEP=;;\r\n", "\ufeffsep=;\r\n", "sep=|\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_first_line_may_tell_the_separator(tmp_path: Path, told: str, encoding: str) -> None:
    between = "|" if "|" in told else ";"
    lines = [f"path{between}label", f'"a, b.jpg"{between}x', f"c.jpg{between}y{between}{between}", between]
    file = tmp_path / "a.csv"
    text = told + "\r\n".join(lines)
    file.write_bytes(text.encode(encoding) if encoding == "utf-8" else text.lstrip("\ufeff").encode(encoding))
    assert [(line, row["path"], row["label"]) for line, row in read_csv(file, ("path", "label"))] == [
        (3, "a, b.jpg", "x"),
        (4, "c.jpg", "y"),
        (5, "", ""),
    ]
    file.write_text(told + f"path{between}label\na.jpg{between}x\nb.jpg\n")
    with pytest.raises(MasslError, match=r"a.csv, line 4 has fewer values"):
        read_csv(file, ("path", "label"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04rest", "is a spreadsheet file, not CSV; save it as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a spreadsheet file"),
        ("path,label\na,b\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
    ],
)
def test_what_is_no_csv_says_what_to_do(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(MasslError, match=message):
        read_csv(tmp_path / "a.csv", ("path", "label"))


def test_a_list_s_paths_are_its_column_or_its_first_values(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for text, paths in (
        ("path;label\r\na.jpg;x\r\n", ["a.jpg"]),
        ("label\tPATH\nx\ta.jpg\n\n", ["a.jpg"]),
        ("a.jpg;x\nb.jpg;y\n", ["a.jpg", "b.jpg"]),
        ("sep=,\na.jpg\n", ["a.jpg"]),
        ("", []),
    ):
        file.write_text(text)
        assert read_paths(file) == paths
