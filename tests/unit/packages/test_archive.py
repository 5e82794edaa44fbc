"""Archives that honest programs write are read; how large they may be is bounded."""

import io
import struct
import zipfile
import zlib

import pytest

from tests.crafted_packages import LIMIT, Entry, crafted, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages.archive import Archive


class Pipe(io.RawIOBase):
    """A file that cannot go back: zipfile then writes descriptors behind the contents."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.written += data
        return len(data)


def contents(data: bytes) -> dict[str, bytes]:
    return dict(Archive(data, limit=LIMIT).contents())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_read_in_archive_order(method):
    files = {"z.txt": b"last name first", "a/b.txt": b"x" * 10_000, "empty": b""}
    archive = Archive(zipped(files, method=method, comment=b"note"), limit=LIMIT)
    assert archive.names == ("z.txt", "a/b.txt", "empty")
    assert dict(archive.contents()) == files
    assert archive.comment == b"note"
    assert archive.size("a/b.txt") == 10_000
    assert "a/b.txt" in archive
    assert "a" not in archive


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive_written_to_a_pipe_is_read(method):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.writestr("one.txt", b"first")
        archive.writestr("two.txt", b"second" * 1000)
    assert contents(bytes(pipe.written)) == {"one.txt": b"first", "two.txt": b"second" * 1000}


@pytest.mark.parametrize("pipe", [False, True])
def test_archive_with_zip64_headers_is_read(pipe):
    out = Pipe() if pipe else io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("big.txt", "w", force_zip64=True) as file:
            file.write(b"not big at all")
        archive.writestr("small.txt", b"small")
    data = bytes(out.written) if pipe else out.getvalue()
    assert contents(data) == {"big.txt": b"not big at all", "small.txt": b"small"}


@pytest.mark.parametrize("signature", [b"", b"PK\x07\x08"])
@pytest.mark.parametrize("layout", ["<3L", "<L2Q"])
def test_every_form_of_descriptor_is_read(layout, signature):
    content = b"some text"
    entry = Entry(b"a.txt", content, flags=8)
    body = struct.pack(layout, zlib.crc32(content), len(entry.body()), len(content))
    entry.descriptor = signature + body
    assert contents(crafted([entry, Entry(b"b.txt", b"b")])) == {"a.txt": content, "b.txt": b"b"}


def test_zip64_values_in_the_directory_are_read():
    content = b"x" * 300
    entry = Entry(b"a.txt", content)
    wide = struct.pack("<2H3Q", 1, 24, len(content), len(entry.body()), 0)
    full = 0xFFFFFFFF
    entry.central = {"size": full, "packed": full, "header": full, "extra": wide}
    entry.local = {"size": full, "packed": full, "extra": wide[:2] + b"\x10\0" + wide[4:20]}
    assert contents(crafted([entry])) == {"a.txt": content}


def test_zip64_end_record_that_agrees_is_read():
    entry = Entry(b"a.txt", b"content")
    plain = crafted([entry])
    at = plain.index(b"PK\x01\x02")
    size = len(plain) - 22 - at
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, at)
    end64 += struct.pack("<4sLQL", b"PK\x06\x07", 0, at + size, 1)
    assert contents(crafted([entry], end64=end64)) == {"a.txt": b"content"}


def test_name_is_utf8_whatever_the_flag_says():
    name = "é/文件.txt"
    for flags in (0, 0x800):
        data = crafted([Entry(name.encode(), b"x", flags=flags)])
        assert Archive(data, limit=LIMIT).names == (name,)


def test_unnormal_but_harmless_names_are_cleaned():
    data = crafted([Entry(b"./x", b"1"), Entry(b"a//b", b"2"), Entry(b"a/./c", b"3")])
    assert Archive(data, limit=LIMIT).names == ("x", "a/b", "a/c")


def test_nested_archive_in_a_package_is_just_a_file():
    inner = zipped({"inner.txt": b"x"}, comment=b"inner")
    files = {"sample.zip": inner, "other": b"y"}
    assert contents(zipped(files, method=zipfile.ZIP_STORED)) == files


def test_sum_of_sizes_is_limited():
    data = zipped({"a": b"x" * 600, "b": b"y" * 600})
    assert Archive(data, limit=1200).names == ("a", "b")
    with pytest.raises(PackageRejected, match="uncompressed size is less than 1199 bytes"):
        Archive(data, limit=1199)


def test_packed_size_is_limited():
    with pytest.raises(PackageRejected, match="too large"):
        Archive(zipped({"a": b""}, comment=b"c" * 1000), limit=500)


@pytest.mark.parametrize("data", [b"", b"PK", b"hello world" * 20, b"PK\x05\x06", b"\0" * 4096])
def test_what_is_no_archive_says_so(data):
    with pytest.raises(PackageRejected, match="not a valid difypkg file"):
        Archive(data, limit=LIMIT)


def test_archive_without_files_is_rejected():
    with pytest.raises(PackageRejected, match="0 entries"):
        Archive(zipped({}), limit=LIMIT)


def test_truncated_archive_is_rejected_at_every_length():
    data = zipped(plugin())
    for length in range(0, len(data), 7):
        with pytest.raises(PackageRejected):
            Archive(data[:length], limit=LIMIT)


def test_damaged_content_is_noticed_when_it_is_read():
    data = bytearray(crafted([Entry(b"a.txt", b"some text", method=0)]))
    data[data.index(b"some text")] ^= 1
    archive = Archive(bytes(data), limit=LIMIT)
    with pytest.raises(PackageRejected, match=r"'a\.txt' is damaged"):
        archive.read("a.txt")


def test_file_that_is_not_there_is_a_key_error():
    with pytest.raises(KeyError):
        Archive(zipped({"a": b""}), limit=LIMIT).read("b")
