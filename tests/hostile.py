"""Tables as people have them, whole and broken, written without the library; what must come of each is known."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from questlib.schema import ID, INPUT_COLUMNS

IDS = [
    "007", "1e3", "+4", "4", "4.0", "4.5", "-0", "0x1F", "nan", "NaN", "None", "null", "true", "1_000", "x y", " 9",
    "9 ", "\u00e9", "\u65e5\u672c", "a,b", "a\nb", "a\r\nb", "\t", "'", "=1+1", "1" * 300, "12345678901234567890123",
    "NA", "inf", "#", "\\N",
]  # fmt: skip
TEXTS = [
    "how to step", "", "NA", "None", "a,b", 'a "quoted" word', "two\nlines", "a\r\nb", "\ta tab", "  ", "na\u00efve",
    "\u65e5\u672c\u8a9e", "\U0001f600 good", "a\0b", "[SEP] [PAD] <s>", "\ufeffmark", "x" * 5_000, "\\", "'", "=1+1",
    "a;b|c", "\u200b", "\x85next", "good\rbad",
]  # fmt: skip
PACKED = (".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip")


@dataclass
class Table:
    """One table: its rows in columns of the file, how it is written, and what must come of reading it."""

    header: list[str]
    rows: list[list[str]]
    suffix: str = ".csv"
    options: dict = field(default_factory=dict)  # of csv.writer
    encode: Callable[[str], bytes] = str.encode
    spoil: Callable[[bytes], bytes] = bytes
    words: str | None = None  # of the refusal, None where it must be read

    def write(self, path: Path) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, **{"lineterminator": "\n"} | self.options)
        writer.writerow(self.header)
        for row in self.rows:
            writer.writerow(row)
        path.write_bytes(self.spoil(_pack(self.encode(text.getvalue()), self.suffix)))


def _pack(content: bytes, suffix: str) -> bytes:
    if suffix.endswith(".zip"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("table.csv", content)
        return packed.getvalue()
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return packers.get(Path(suffix).suffix, bytes)(content)


def build(seed: int) -> Table:
    """Build one table, whole or with one fault in it."""
    generator = np.random.default_rng(seed)
    names = list(generator.permutation(list(INPUT_COLUMNS)))
    if generator.random() < 0.3:
        names.insert(int(generator.integers(len(names) + 1)), "more")
    n_rows = int(generator.integers(1, 9))
    ids = generator.choice(np.array(IDS, dtype=object), n_rows, replace=False)
    values = {name: generator.choice(np.array(TEXTS, dtype=object), n_rows) for name in names}
    values[ID] = ids
    rows = [[str(values[name][row]) for name in names] for row in range(n_rows)]
    table = Table(header=names, rows=rows, suffix=str(generator.choice([".csv", *PACKED])))
    table.options = {
        "lineterminator": str(generator.choice(["\n", "\r\n"])),
        "quoting": csv.QUOTE_ALL if generator.random() < 0.7 else csv.QUOTE_MINIMAL,
    }
    if any("\r" in value or "\n" in value for row in rows for value in row):
        table.options["quoting"] = csv.QUOTE_ALL
    if generator.random() < 0.3:
        table.encode = lambda text: text.encode("utf-8-sig")
    if generator.random() < 0.5:
        FAULTS[str(generator.choice(list(FAULTS)))](table, generator)
    return table


def _shorten(table: Table, generator: np.random.Generator) -> None:
    row = int(generator.integers(len(table.rows)))
    del table.rows[row][int(generator.integers(1, len(table.header))) :]
    table.rows[row][0] = table.rows[row][0] or "x"  # an empty line is none
    table.words = f"row {row} "


def _lengthen(table: Table, generator: np.random.Generator) -> None:
    row = int(generator.integers(len(table.rows)))
    table.rows[row] += ["more"] * int(generator.integers(1, 4))
    table.words = f"row {row} "


def _repeat_header(table: Table, generator: np.random.Generator) -> None:
    row = int(generator.integers(len(table.rows) + 1))
    table.rows.insert(row, list(table.header))
    table.words = f"row {row} "


def _repeat_id(table: Table, _: np.random.Generator) -> None:
    table.rows.append(list(table.rows[0]))
    table.words = "unique"


def _empty_id(table: Table, generator: np.random.Generator) -> None:
    row = int(generator.integers(len(table.rows)))
    table.rows[row][table.header.index(ID)] = ""
    table.words = f"row {row} "


def _lose_column(table: Table, generator: np.random.Generator) -> None:
    name = str(generator.choice(list(INPUT_COLUMNS)))
    place = table.header.index(name)
    for row in (table.header, *table.rows):
        del row[place]
    table.words = name


def _double_column(table: Table, _: np.random.Generator) -> None:
    table.header.append(table.header[0])
    for row in table.rows:
        row.append("again")
    table.words = "doubled"


def _lose_rows(table: Table, _: np.random.Generator) -> None:
    table.rows.clear()
    table.words = "at least one row"


def _open_quote(table: Table, _: np.random.Generator) -> None:
    table.suffix = ".csv"
    table.spoil = lambda content: content + b'"1","never closed'
    table.words = "must be a CSV table"


def _other_encoding(table: Table, generator: np.random.Generator) -> None:
    encoding = str(generator.choice(["utf-16", "utf-32", "cp1252"]))
    table.rows[0][table.header.index("question_title")] = "caf\u00e9"
    table.encode = lambda text: text.encode(encoding, "replace")
    table.words = "UTF-8"


def _cut_archive(table: Table, _: np.random.Generator) -> None:
    table.suffix = table.suffix if table.suffix != ".csv" else ".csv.gz"
    table.spoil = lambda content: content[: len(content) * 2 // 3]
    table.words = "must be a CSV table"


def _name_falsely(table: Table, generator: np.random.Generator) -> None:
    packed = table.suffix
    table.suffix = str(generator.choice([each for each in PACKED if each != packed]))
    table.spoil = lambda _: _pack(b"qa_id\n1\n", packed)
    table.words = "must be a CSV table"


def _empty(table: Table, _: np.random.Generator) -> None:
    table.suffix, table.spoil, table.words = ".csv", lambda _: b"", "it is empty"


FAULTS = {
    "shorten": _shorten,
    "lengthen": _lengthen,
    "repeat_header": _repeat_header,
    "repeat_id": _repeat_id,
    "empty_id": _empty_id,
    "lose_column": _lose_column,
    "double_column": _double_column,
    "lose_rows": _lose_rows,
    "open_quote": _open_quote,
    "other_encoding": _other_encoding,
    "cut_archive": _cut_archive,
    "name_falsely": _name_falsely,
    "empty": _empty,
}
