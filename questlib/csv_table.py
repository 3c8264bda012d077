"""CSV tables as they were written: no field cut off, filled up or read as something else; compressed by their name."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd

from questlib.run_folder import write_bytes

_OPENERS: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": lambda path: cast("IO[bytes]", gzip.open(path, "rb")),
    ".bz2": lambda path: _unpack(path, bz2.BZ2Decompressor),
    ".xz": lambda path: _unpack(path, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
}
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
_ZIP = ".zip"
_OTHERS = tuple(
    ".zst .zstd .lz .lz4 .lzma .lzo .z .br .sz .7z .rar .tar .tgz .tbz .tbz2 .txz .tlz .gzip .bgz .bz .zz .zipx "
    ".cab .cpio .jar .lha .lzh .arj .gpg .pq .hdf .mat .dbf .duckdb .sql .toml .psv .ssv .fods .xltx .pdf .docx "
    ".joblib .tsv .tab .xls .xlsx .xlsm .xlsb .ods .numbers .parquet .feather .arrow .ipc .orc .avro .json .jsonl "
    ".ndjson .xml .html .htm .md .yaml .yml .pkl .pickle .npy .npz .h5 .hdf5 .db .sqlite .sqlite3 .dta .sav "
    ".sas7bdat .rds".split()
)
# A RuntimeError: an archive's password is asked for, or its method is none of zipfile's.
_DAMAGE = (
    OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, UnicodeDecodeError, csv.Error
)  # fmt: skip
_ROWS_AT_A_TIME = 10_000
_LONGEST_FIELD = 2**31 - 1


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV table in UTF-8; every field is text, and an empty one is null.

    Raises:
        ValueError: If it is no such table, or a row does not have the header's fields; the message has the row's
            number, from 0, and its line.
    """
    refuse_unknown_format(path)
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with _open_text(path) as text:
            rows = _read_rows(path, text)
            header = next(rows, None)
            if header is None:
                raise ValueError(f"{path} must be a CSV table in UTF-8 with a header, however: it is empty")
            parts, part = [], []
            for row in rows:
                part.append(row)
                if len(part) == _ROWS_AT_A_TIME:
                    parts.append(_build(part, header))
                    part = []
            return pd.concat([*parts, _build(part, header)], ignore_index=True)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # it cannot be read at all
            raise
        raise ValueError(f"{path} must be a CSV table in UTF-8 with a header, however: {error}") from error


def refuse_unknown_format(path: Path) -> None:
    """Refuse a name that promises a format which is neither read nor written."""
    own = path.with_suffix("") if path.suffix.lower() in (*_OPENERS, _ZIP) else path  # table.json.gz is JSON
    if own.suffix.lower() in _OTHERS:
        known = [".csv", *(f".csv{suffix}" for suffix in (*_OPENERS, _ZIP))]
        raise ValueError(f"{path} must be a CSV table, one of {known}, however it is named {own.suffix}; name another")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all, in the format that its name promises."""
    refuse_unknown_format(path)
    # A carriage return ends a line for readers, yet is not quoted by itself.
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    returns = any(frame[name].astype(str).str.contains("\r", regex=False).any() for name in words)
    content = frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL).encode()
    suffix = path.suffix.lower()
    if suffix == _ZIP:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(path.with_suffix("").name), content, zipfile.ZIP_DEFLATED)
        content = packed.getvalue()
    elif suffix in _PACKERS:
        content = _PACKERS[suffix](content)
    write_bytes(path, content)


def _unpack(path: Path, start: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> IO[bytes]:
    # Python's own files take whatever follows the first stream, be it a damaged second one, for nothing.
    packed, parts = path.read_bytes(), []
    while packed.strip(b"\0"):
        stream = start()
        parts.append(stream.decompress(packed))
        if not stream.eof:
            raise EOFError("it is cut off")
        packed = stream.unused_data
    return io.BytesIO(b"".join(parts))


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    suffix = path.suffix.lower()
    if suffix == _ZIP:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"{path} must hold one table, however it holds {names[:5]}; unpack it")
            with archive.open(names[0]) as stream:
                yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    else:
        with _OPENERS.get(suffix, lambda plain: plain.open("rb"))(path) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _read_rows(path: Path, text: IO[str]) -> Iterator[list[str]]:
    reader = csv.reader(text, strict=True)
    header, names = list[str](), set[str]()
    number = 0
    for row in reader:
        if not row:  # an empty line
            continue
        if not header:
            header, names = row, _as_names(row)
        else:
            where = f"{path}: row {number} (line {reader.line_num})"
            if len(row) != len(header):
                raise ValueError(
                    f"{where} must have {len(header)} fields, as the header has, however: {len(row)}; the table may be "
                    "cut off, or quotes may be missing"
                )
            if _as_names(row[:1]) <= names and _as_names(row) == names:
                raise ValueError(f"{where} must be a row, however it is the header again; remove it")
            number += 1
        yield row


def _as_names(fields: Sequence[str]) -> set[str]:
    # Of tables that were put together the second one may begin with a mark, or have its columns in another order.
    return {field.strip("\ufeff ").casefold() for field in fields}


def _build(rows: Sequence[Sequence[str]], header: list[str]) -> pd.DataFrame:
    fields = np.array(rows, dtype=object).reshape(len(rows), len(header))
    fields[fields == ""] = None
    return pd.DataFrame(fields, columns=header)
