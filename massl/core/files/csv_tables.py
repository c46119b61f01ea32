"""CSV: tables that people make elsewhere, as spreadsheets write them, and those that are written here."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from massl.core.errors import MasslError
from massl.core.regular_files import read_regular

_SEPARATORS = ",;\t"  # where a comma is the decimal point, spreadsheets write semicolons
# A first line that tells spreadsheets the separator, as some of them and many programs write it.
_TELLS_SEPARATOR = re.compile(r'"?sep=(.)"?[ \t;,]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
# What spreadsheets take for a formula (OWASP, "CSV Injection"), the wide forms of East Asian keyboards among them; and
# what was escaped, or would look so. A plain number is none.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_ESCAPED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # of today's spreadsheets, and Excel's until 2003
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of the line on which it begins.

    In UTF-8 or UTF-16, with commas, semicolons or tabs between; a first line `sep=;` is understood. Columns may be
    written in capitals and with spaces around, and there may be others. Bytes that are no UTF-8 are kept, as a file's
    name may hold such. What `csv_text` wrote with an apostrophe before it comes without.

    Args:
        path: the file.
        columns: which are needed, in small letters.

    Raises:
        MasslError: missing or unreadable, no such columns or one of them twice, a row with too few or too many values
            or with a quote that is never closed, or no row at all.
    """
    between, lines = _lines(path)
    _, first = next(lines, (1, []))
    names = _names(first)
    missing = [name for name in columns if name not in names]
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise MasslError(f"{path} has two columns called {twice[0]}; rename one of them")
    if missing:
        wanted = ", ".join(columns)
        raise MasslError(f"{path} needs a first line that names the columns {wanted}; {missing[0]} is missing")
    rows: list[tuple[int, dict[str, str]]] = []
    for line, values in lines:
        row = dict(zip(names, values, strict=False))
        if any(name not in row for name in columns):
            if not any(values):  # only separators, as spreadsheets leave empty rows
                continue
            raise MasslError(f"{path}, line {line} has fewer values than the first line has columns")
        if any(values[len(names) :]):
            raise MasslError(
                f"{path}, line {line} has more values than the first line has columns; one that holds "
                f"{'a comma' if between == ',' else 'the separator'} goes in quotes"
            )
        rows.append((line, row))
    if not rows:
        raise MasslError(f"{path} has no rows below the first line")
    return rows


def read_paths(path: Path) -> list[str]:
    """The column `path` of a CSV file or, where its first line has none, the first values of all its lines.

    Raises:
        MasslError: as `read_csv`, apart from missing columns and rows.
    """
    _, lines = _lines(path)
    rows = [values for _, values in lines]
    names = _names(rows[0]) if rows else []
    column = names.index("path") if "path" in names else 0
    return [row[column] for row in rows["path" in names :] if len(row) > column]


def csv_columns(path: Path) -> list[str]:
    """The names in the first line of a CSV file, as `read_csv` takes them.

    Raises:
        MasslError: missing, unreadable or damaged.
    """
    _, lines = _lines(path)
    return _names(next(lines, (1, []))[1])


def read_text(path: Path) -> str:
    """The text of a list or table: UTF-8 with or without a mark, or UTF-16 with one; other bytes stay as they are.

    Raises:
        MasslError: missing, unreadable, or no text.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
    except OSError as error:
        raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if data.startswith(_WORKBOOKS):
        raise MasslError(f"{path} is a spreadsheet file, not CSV; save it as CSV in UTF-8")
    try:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16") if wide else data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError:
        raise MasslError(f"{path} is damaged: it begins as UTF-16 but is not; save it as CSV in UTF-8") from None
    if "\0" in text:
        raise MasslError(f"{path} is not text, or UTF-16 without a byte order mark; save it as CSV in UTF-8")
    return text


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV that `read_csv`, pandas and spreadsheets read as it is, whatever the names in it hold.

    What a spreadsheet would take for a formula gets an apostrophe before it, which `read_csv` takes away again.
    """
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    careful = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (columns, *rows):
        values = [_escape(value) if isinstance(value, str) else value for value in row]
        # Readers end a line at a carriage return, too, and the writer quotes only what ends its own.
        (careful if any("\r" in str(value) for value in values) else plain).writerow(values)
    return text.getvalue()


def is_formula(value: str) -> bool:
    """Whether a spreadsheet would take a value for a formula."""
    return bool(_FORMULA.match(value.lstrip("'"))) and not _NUMBER.fullmatch(value)


def _escape(value: str) -> str:
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def _plain(value: str) -> str:
    return value[1:] if _ESCAPED.match(value) else value


def _lines(path: Path) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """The separator, and the values of each line that isn't empty with its number.

    Raises:
        MasslError: missing or unreadable; while it is read, a quote that is never closed.
    """
    text = read_text(path)
    told = _TELLS_SEPARATOR.match(text)
    body = text[told.end() :] if told else text
    between = told[1] if told else max(_SEPARATORS, key=_LINE_ENDS.split(body, maxsplit=1)[0].count)
    return between, _values(path, body, between, first=2 if told else 1)


def _values(path: Path, text: str, between: str, first: int) -> Iterator[tuple[int, list[str]]]:
    line = first
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        for values in reader:
            if values:
                yield line, [_plain(value) for value in values]
            line = reader.line_num + first
    except (csv.Error, TypeError, ValueError) as error:
        unclosed = "unexpected end" in str(error) or "field limit" in str(error)
        quoted = '"' in [*io.StringIO(text).readlines(), ""][line - first]
        reason = ("a quote is opened and never closed" if quoted else "a value is far too long") if unclosed else error
        raise MasslError(f"{path}, line {line}: {reason}") from None


def _names(values: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in values]
