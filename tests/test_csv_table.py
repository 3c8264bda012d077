"""A table holds what was written, or is refused with the row's number."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from questlib.csv_table import read_csv, write_csv

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.lists(st.tuples(WORDS.filter(bool), WORDS, WORDS), min_size=1, max_size=6)
HEADER = ["qa_id", "title", "body"]
ON_DISK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(path, text, *, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def fields_of(frame):
    return [["" if field is None else field for field in row] for row in frame.to_numpy().tolist()]


@ON_DISK
@given(rows=ROWS, ends=st.sampled_from(["\n", "\r\n"]), quotes=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_fields_come_out_as_they_were_written(rows, ends, quotes, tmp_path):
    if any("\r" in field for row in rows for field in row):
        quotes = csv.QUOTE_ALL  # the standard library would write it as the end of a line
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ends, quoting=quotes).writerows([HEADER, *rows])
    frame = read_csv(put(tmp_path / "t.csv", text.getvalue()))
    assert list(frame.columns) == HEADER
    if list(rows) != [tuple(HEADER)]:
        assert fields_of(frame) == [list(row) for row in rows]


@ON_DISK
@given(rows=ROWS, suffix=st.sampled_from(["", ".gz", ".bz2", ".xz", ".zip"]))
def test_what_is_written_is_in_the_format_of_its_name_and_read_again(rows, suffix, tmp_path):
    path = tmp_path / f"t.csv{suffix}"
    write_csv(path, pd.DataFrame(rows, columns=HEADER))
    assert fields_of(read_csv(path)) == [list(row) for row in rows]
    if suffix == "" and any("\r" in field for row in rows for field in row):
        return  # all its words are quoted
    begins = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ", ".zip": b"PK", "": b"qa_id"}
    assert path.read_bytes().startswith(begins[suffix])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n4,5\n", r"row 1 \(line 3\) must have 3 fields, as the header has, however: 2"),
        ("a,b,c\n1,2,3\n4,5,6,7\n8,9,10\n", r"row 1 \(line 3\) must have 3 fields"),
        ("a,b,c\n1,2,3\n(2 rows)\n", r"row 1 \(line 3\)"),
        ("a,b,c\n1,2,3\na,b,c\n4,5,6\n", r"row 1 \(line 3\) must be a row, however it is the header again"),
        ("a,b,c\n1,2,3\n\ufeffa,b,c\n4,5,6\n", r"row 1 \(line 3\) must be a row, however it is the header again"),
        ("a,b,c\n1,2,3\nc,B, a\n4,5,6\n", r"row 1 \(line 3\) must be a row, however it is the header again"),
        ('a,b,c\n1,2,"cut in a text', "however: unexpected end of data"),
        ('a,b,c\n1,"x"y,3\n', "however: "),
        ("", "however: it is empty"),
        ('a,b\n"two\nlines",2\n3\n', r"row 1 \(line 4\)"),
    ],
)
def test_row_that_is_not_whole_is_refused_by_its_number(text, words, tmp_path):
    with pytest.raises(ValueError, match=f"t.csv.*{words}"):
        read_csv(put(tmp_path / "t.csv", text))


def test_zero_byte_ends_no_field(tmp_path):
    assert read_csv(put(tmp_path / "t.csv", "a,b\nx\0SECRET,2\n")).loc[0, "a"] == "x\0SECRET"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings_are_refused_by_name(encoding, tmp_path):
    with pytest.raises(ValueError, match=r"t.csv must be a CSV table in UTF-8"):
        read_csv(put(tmp_path / "t.csv", "a,b\nübel,2\n", encoding=encoding))


OTHERS = [
    "t.csv.zst",
    "t.tar",
    "t.csv.tgz",
    "t.7z",
    "t.parquet",
    "t.tsv",
    "t.XLS",
    "t.json.gz",
    "t.tar.gz",
    "t.ods.zip",
    "t.csv.gzip",
    "t.pq",
    "t.zipx",
]


@pytest.mark.parametrize("name", OTHERS)
def test_formats_that_are_neither_read_nor_written_are_refused_by_name(name, tmp_path):
    for act in (read_csv, lambda path: write_csv(path, pd.DataFrame({"a": [1]}))):
        with pytest.raises(ValueError, match=r"must be a CSV table, one of .*\.csv\.gz"):
            act(put(tmp_path / name, "a,b\n1,2\n") if act is read_csv else tmp_path / f"new-{name}")
    assert not list(tmp_path.glob("new-*"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zip"])
@pytest.mark.parametrize("damage", ["cut", "another format", "bytes changed"])
def test_damaged_archive_is_told_in_words(suffix, damage, tmp_path):
    path = tmp_path / f"t.csv{suffix}"
    write_csv(path, pd.DataFrame({"a": [f"some words {number}" for number in range(500)]}))
    content = path.read_bytes()
    changed = content[: len(content) // 2] + bytes(each ^ 255 for each in content[len(content) // 2 :])
    path.write_bytes({"cut": content[:-20], "another format": b"a\n1\n", "bytes changed": changed}[damage])
    with pytest.raises(ValueError, match=f"t.csv{suffix} must be a CSV table"):
        read_csv(path)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_archive_in_several_pieces_is_read_whole_or_refused(suffix, pack, tmp_path):
    path = tmp_path / f"t.csv{suffix}"
    pieces = [pack(b"a\n1\n"), pack(b"2\n")]
    path.write_bytes(b"".join(pieces) + b"\0" * 8)
    assert fields_of(read_csv(path)) == [["1"], ["2"]]
    for second in (b"garbage!", b"x" + pieces[1][1:], pieces[1][:-2]):
        path.write_bytes(pieces[0] + second)
        with pytest.raises(ValueError, match=f"t.csv{suffix} must be a CSV table"):
            read_csv(path)


@pytest.mark.parametrize(("places", "words"), [((6, 8), "encryption"), ((8, 10), "compression method is not")])
def test_archive_that_python_does_not_open_is_refused_by_name(places, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", "a\n1\n")
    content = bytearray((tmp_path / "t.zip").read_bytes())
    for start, place in zip((b"PK\3\4", b"PK\1\2"), places, strict=True):
        content[content.rfind(start) + place] |= 93  # a flag, or a method
    (tmp_path / "t.zip").write_bytes(content)
    with pytest.raises(ValueError, match=f"t.zip must be a CSV table in UTF-8 .*{words}"):
        read_csv(tmp_path / "t.zip")


def test_archive_of_several_tables_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("one.csv", "a\n1\n")
        archive.writestr("two.csv", "a\n1\n")
    with pytest.raises(ValueError, match="must hold one table, however it holds"):
        read_csv(tmp_path / "t.zip")
