"""CSV: tables that people make elsewhere, as spreadsheets write them, and those that are written here."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from massl.errors import MasslError

_SEPARATORS = ",;\t"  # where a comma is the decimal point, spreadsheets write semicolons


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of the line on which it begins.

    In UTF-8 or UTF-16, with commas, semicolons or tabs between. Columns may be written in capitals and with spaces
    around, and there may be others. Bytes that are no UTF-8 are kept, as a file's name may hold such.

    Args:
        path: the file.
        columns: which are needed, in small letters.

    Raises:
        MasslError: missing or unreadable, no such columns or one of them twice, a row with too few or too many values
            or with a quote that is never closed, or no row at all.
    """
    text = _text(path)
    between = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    line = 1
    try:
        names = _names(next(reader, []))
        missing = [name for name in columns if name not in names]
        twice = [name for name in columns if names.count(name) > 1]
        if twice:
            raise MasslError(f"{path} has two columns called {twice[0]}; which is meant can't be told: rename one")
        if missing:
            wanted = ", ".join(columns)
            raise MasslError(f"{path} needs a first line that names the columns {wanted}; {missing[0]} is missing")
        line = reader.line_num + 1
        for values in reader:
            row = dict(zip(names, values, strict=False))
            if values and any(name not in row for name in columns):
                raise MasslError(f"{path}, line {line} has fewer values than the first line has columns")
            if any(values[len(names) :]):
                raise MasslError(
                    f"{path}, line {line} has more values than the first line has columns; one that holds "
                    f"{'a comma' if between == ',' else 'the separator'} goes in quotes"
                )
            if values:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end" in str(error) or "field limit" in str(error)
        quoted = '"' in io.StringIO(text).readlines()[line - 1]
        reason = ("a quote is opened and never closed" if quoted else "a value is far too long") if unclosed else error
        raise MasslError(f"{path}, line {line}: {reason}") from None
    if not rows:
        raise MasslError(f"{path} has no rows below the first line")
    return rows


def csv_columns(path: Path) -> list[str]:
    """The names in the first line of a CSV file, as `read_csv` takes them.

    Raises:
        MasslError: missing, unreadable or damaged.
    """
    text = _text(path)
    try:
        return _names(next(csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text)), []))
    except csv.Error as error:
        raise MasslError(f"{path}, line 1: {error}") from None


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such file") from None
    except OSError as error:
        raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    try:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16") if wide else data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError:
        raise MasslError(f"{path} is damaged: it begins as UTF-16 and is not; save it as CSV in UTF-8") from None


def _separator(text: str) -> str:
    return max(_SEPARATORS, key=text.split("\n", 1)[0].count)


def _names(values: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in values]


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV that `read_csv`, pandas and spreadsheets read as it is, whatever the names in it hold."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    careful = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (columns, *rows):
        # Readers end a line at a carriage return, too, and the writer quotes only what ends its own.
        (careful if any("\r" in str(value) for value in row) else plain).writerow(row)
    return text.getvalue()
