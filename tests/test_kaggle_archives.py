import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from questlib.kaggle import archives
from questlib.kaggle.archives import unpack


def pack_zip(path, names, *, link=False):
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
            packed.writestr(info, b"content")
    return path


def pack_tar(path, names, *, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as packed:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, 7 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
            packed.addfile(info, io.BytesIO(b"content"))
    return path


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_files_and_folders_are_unpacked(tmp_path, pack):
    unpack(pack(tmp_path / "a", ["one.txt", "deep/two.txt"]), tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "two.txt").read_bytes() == b"content"


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "deep/../../out.txt", "..\\out.txt", "c:/out.txt"])
def test_entry_that_leaves_the_folder_is_refused_before_a_byte_is_written(tmp_path, pack, name):
    path = pack(tmp_path / "a", ["good.txt", name])
    with pytest.raises(ValueError, match="every entry of a must stay in its folder"):
        unpack(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_links_are_refused(tmp_path):
    for path in (
        pack_zip(tmp_path / "a", ["link"], link=True),
        pack_tar(tmp_path / "b", ["link"], kind=tarfile.SYMTYPE),
        pack_tar(tmp_path / "c", ["link"], kind=tarfile.LNKTYPE),
        pack_tar(tmp_path / "d", ["pipe"], kind=tarfile.FIFOTYPE),
    ):
        with pytest.raises(ValueError, match="must be a file or a folder"):
            unpack(path, tmp_path / "out")


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_BYTES", 10)
    with gzip.open(tmp_path / "c", "wb") as stream:
        stream.write(b"0" * 100)
    for path in (pack_zip(tmp_path / "a", ["1", "2"]), pack_tar(tmp_path / "b", ["1", "2"]), tmp_path / "c"):
        with pytest.raises(ValueError, match="must unpack to 10 bytes at most"):
            unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
