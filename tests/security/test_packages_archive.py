"""T-S1 to T-S3: archives that mean harm, or that two programs would read in two ways."""

import stat
import struct
import time
import zipfile
import zlib

import pytest

from tests.crafted_packages import LIMIT, Entry, crafted, deflated, entries, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import archive, open_package
from tidegate.packages.archive import Archive


def refused(data: bytes, match: str | None = None, *, limit: int = LIMIT) -> None:
    """Opening, or reading the last file at the latest, refuses the archive."""
    with pytest.raises(PackageRejected, match=match):
        list(Archive(data, limit=limit).contents())


# --------------------------------------------------------------------------- T-S1: names


@pytest.mark.parametrize(
    "name",
    [
        b"../evil", b"a/../../evil", b"a/..", b"..", b"/etc/passwd", b"//host/share",
        b"C:evil", b"c:/evil", b"..\\evil", b"a\\b", b"\\\\host\\share",
        b"nul\0.txt", b"a\nb", b"tab\t", b"\x7f", b"", b".", b"./", b"folder/",
        b"\xff\xfe", b"caf\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"a" * 256, b"a/" * 600 + b"b",
    ],
)  # fmt: skip
def test_T_S1_name_that_could_do_harm_is_rejected(name):
    refused(crafted([Entry(b"fine.txt", b"x"), Entry(name, b"x")]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("a.txt", "./a.txt"), ("a/b", "a//b"),
        ("straße", "STRASSE"), ("é", "e\u0301"), ("ﬁle", "file"), ("a", "a/b"), ("A/b", "a"),
        ("main.py", "Main.py/x"), ("İ", "i̇"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_T_S1_names_that_meet_on_some_disk_are_rejected(one, other, turned):
    pair = [Entry(one.encode(), b"1"), Entry(other.encode(), b"2")]
    refused(crafted(pair[::-1] if turned else pair), "clashes|is there twice")


def test_T_S2_folders_beyond_counting_are_rejected():
    """An archive of 50 MB has room for the names of ten million folders: gigabytes of memory."""
    entries = [Entry(f"{n:x}/{'a/' * 490}b".encode(), b"") for n in range(50)]
    refused(crafted(entries), "more than 20000 folders")


def test_T_S1_ordinary_neighbours_do_not_clash():
    names = ["README.md", "readme/README_zh_Hans.md", "a/b", "a/c", "A/d", "ab", "a.b"]
    data = crafted([Entry(name.encode(), b"x") for name in names])
    assert Archive(data, limit=LIMIT).names == tuple(names)


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_T_S1_entry_that_is_no_regular_file_is_rejected(kind):
    refused(crafted([Entry(b"a", b"/etc", mode=kind | 0o777)]), "no regular file")


def test_T_S1_link_and_file_through_it_is_rejected():
    link = Entry(b"a", b"/tmp", mode=stat.S_IFLNK | 0o777)
    refused(crafted([link, Entry(b"a/evil", b"x")]))


def test_T_S1_second_name_in_an_extra_field_is_rejected():
    lie = struct.pack("<2HBL", 0x7075, 5 + 7, 1, zlib.crc32(b"a.txt")) + b"../evil"
    for where in ("local", "central"):
        refused(crafted([Entry(b"a.txt", b"x", **{where: {"extra": lie}})]), "name|two ways")
    same = struct.pack("<2HBL", 0x7075, 5 + 5, 1, zlib.crc32(b"a.txt")) + b"a.txt"
    data = crafted([Entry(b"a.txt", b"x", local={"extra": same}, central={"extra": same})])
    assert Archive(data, limit=LIMIT).names == ("a.txt",)


def test_T_S1_extraction_writes_only_inside_and_never_over(tmp_path):
    package = open_package(zipped(plugin()), limit=LIMIT)
    folder = tmp_path / "plugin"
    package.extract_to(folder)
    written = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}
    assert written == plugin()
    assert stat.S_IMODE((folder / "main.py").stat().st_mode) & 0o133 == 0
    with pytest.raises(FileExistsError):
        package.extract_to(folder)


def test_T_S1_extraction_does_not_follow_a_link_that_waits_there(tmp_path):
    package = open_package(zipped(plugin()), limit=LIMIT)
    target = tmp_path / "outside"
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "main.py").symlink_to(target)
    with pytest.raises(FileExistsError):
        package.extract_to(folder)
    assert not target.exists()


# --------------------------------------------------------------------------- T-S2: bombs


def test_T_S2_declared_size_over_the_limit_is_refused_before_unpacking():
    refused(crafted([Entry(b"a", b"\0" * (LIMIT + 1))]), "too large")


@pytest.mark.parametrize("said", [0, 1, 1000])
def test_T_S2_size_that_lies_low_stops_the_unpacking(said):
    bomb = deflated(b"\0" * (50 << 20))
    entry = Entry(b"a", b"", packed=bomb)
    both = {"size": said, "crc": 0}
    entry.local = entry.central = both
    refused(crafted([entry]), "damaged")


@pytest.mark.parametrize("said", [1 << 63, (1 << 64) - 1, 1 << 32])
def test_T_S2_size_beyond_all_memory_is_refused(said):
    entry = Entry(b"a", b"x")
    wide = struct.pack("<2HQ", 1, 8, said)
    entry.central = {"size": 0xFFFFFFFF, "extra": wide}
    entry.local = {"size": 0xFFFFFFFF}
    refused(crafted([entry]))


def test_T_S2_sum_of_many_files_is_bounded():
    refused(crafted([Entry(b"f%d" % n, b"\0" * 1000) for n in range(1100)]), "too large")


def test_T_S2_nested_bomb_is_never_opened():
    bomb = zipped({"inner": b"\0" * (5 << 20)})
    files = plugin() | {"bomb.zip": zipped({f"{n}.zip": bomb for n in range(16)})}
    assert "bomb.zip" in open_package(zipped(files), limit=LIMIT)


def test_T_S2_files_that_share_one_content_are_rejected():
    first = Entry(b"a", b"\0" * 1000)
    data = crafted([first, Entry(b"b", b"\0" * 1000, central={"header": 0})])
    refused(data)


def test_T_S2_file_inside_another_is_rejected():
    inner = crafted([Entry(b"in", b"x" * 50, method=0)])
    outer = Entry(b"out", inner, method=0)
    data = crafted([outer, Entry(b"in", b"x" * 50, method=0, central={"header": 33})])
    refused(data)


def test_T_S2_too_many_entries_are_refused_before_they_are_read():
    refused(crafted([Entry(b"a", b"x")], end={"here": 0xFFFF, "count": 0xFFFF}))
    at = 31 + len(deflated(b"x"))
    million = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 47, at)
    million += struct.pack("<4sLQL", b"PK\x06\x07", 0, at + 47, 1)
    end = {"here": 0xFFFF, "count": 0xFFFF}
    refused(crafted([Entry(b"a", b"x")], end=end, end64=million), "entries")


MILLION = 1_000_000


@pytest.fixture(scope="module")
def million():
    """An archive that really has a million entries (of one name): its parts, and its limit."""
    name, content = b"a", deflated(b"")
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(content), 0, 1, 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(content), 0, 1, 0, 0, 0, 0, 0, 0
    )
    files, directory = (local + name + content) * MILLION, (central + name) * MILLION
    return files, directory


def ended(files, directory, count):
    """The archive, whose end says that it has ``count`` entries."""
    size, at = len(directory), len(files)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    wide += struct.pack("<4sLQL", b"PK\6\7", 0, at + size, 1)
    short = min(count, 0xFFFF)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, short, short, size, at, 0)
    return b"".join((files, directory, wide, end))


def test_T_S2_a_million_entries_cost_no_more_than_the_few_that_are_taken(million):
    """Said truly they are refused at once; said falsely, after those that were said."""
    data = ended(*million, MILLION)
    begun = time.thread_time()
    refused(data, "1000000 entries, at most 65535", limit=1 << 28)
    at_once = time.thread_time() - begun
    del data
    begun = time.thread_time()
    refused(ended(*million, 1), "the directory holds more", limit=1 << 28)
    assert at_once < 1.0
    assert time.thread_time() - begun < 1.0


class Counted:
    """zlib's inflater, and how many bytes all of them made."""

    made = 0

    def __init__(self, bits):
        self._inflater = zlib_decompressobj(bits)

    def decompress(self, data, most):
        content = self._inflater.decompress(data, most)
        Counted.made += len(content)
        return content

    def __getattr__(self, name):
        return getattr(self._inflater, name)


def write_all(data, folder):
    for name, found in Archive(data, limit=LIMIT).contents():
        (folder / name).write_bytes(found)


zlib_decompressobj = zlib.decompressobj
BLOCK = 64 << 10


@pytest.mark.parametrize("said", ["truly", "too low", "as nothing"])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_T_S2_never_more_than_the_limit_and_a_block_is_unpacked(tmp_path, monkeypatch, count, said):
    """However well it is packed: these are a thousand times as long as what they came from."""
    monkeypatch.setattr(archive.zlib, "decompressobj", Counted)
    Counted.made = 0
    size = 4 * LIMIT // count
    content = b"\0" * size
    lie = {"truly": size, "too low": LIMIT // count, "as nothing": 0}[said]
    assert size / len(deflated(content)) > 100
    headers = {"size": lie}
    bombs = [
        Entry(b"f%d" % n, content, local=dict(headers), central=dict(headers)) for n in range(count)
    ]
    with pytest.raises(PackageRejected):
        write_all(crafted(bombs), tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert written <= LIMIT + BLOCK
    assert Counted.made <= LIMIT + BLOCK


def test_T_S2_a_high_ratio_alone_is_no_bomb(tmp_path):
    """Tables of zeros pack a thousand to one: what counts is what is unpacked."""
    files = plugin() | {"zeros.bin": b"\0" * (LIMIT // 2)}
    package = open_package(zipped(files), limit=LIMIT)
    folder = tmp_path / "plugin"
    folder.mkdir()
    package.extract_to(folder)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT


# --------------------------------------------------------------------------- T-S3: two readings


@pytest.mark.parametrize(
    "change",
    [
        {"name": b"b.txt"}, {"name": b"a.txt\0"}, {"method": 0}, {"flags": 0x800}, {"flags": 1},
        {"crc": 1}, {"size": 3}, {"packed": 3}, {"size": 0}, {"packed": 0},
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["local", "central"])
def test_T_S3_headers_that_disagree_are_rejected(where, change):
    refused(crafted([Entry(b"a.txt", b"content", **{where: change}), Entry(b"z", b"z")]))


def test_T_S3_stacked_archives_are_rejected():
    one, other = zipped(plugin()), zipped(plugin(main__py=b"evil"))
    refused(one + other)
    # The same with the offsets of the second one moved, as self-extracting archives do.
    refused(crafted(entries(plugin()), before=one))


@pytest.mark.parametrize("junk", [b"\0", b"#!/bin/sh\n", b"PK\x03\x04", b"x" * 1000])
def test_T_S3_bytes_that_belong_to_no_file_are_rejected(junk):
    two = [Entry(b"a", b"1"), Entry(b"b", b"2")]
    refused(crafted(two, before=junk))
    refused(crafted(two, gap=junk))
    refused(crafted(two, after=junk))
    refused(crafted(two, end64=junk))


def test_T_S3_end_record_inside_the_comment_is_rejected():
    inner = crafted([Entry(b"evil", b"x")])
    refused(zipped(plugin(), comment=inner))
    refused(zipped(plugin(), comment=b"PK\x05\x06" + b"\0" * 18))


def test_T_S3_comment_longer_or_shorter_than_it_says_is_rejected():
    refused(crafted([Entry(b"a", b"x")], comment=b"abc", end={"comment": 2}))
    refused(crafted([Entry(b"a", b"x")], comment=b"abc", end={"comment": 4}))


def test_T_S3_end_record_inside_the_directory_is_rejected():
    hidden = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 22)
    refused(crafted([Entry(b"a", b"x", central={"comment": hidden})]), "inside the directory")


@pytest.mark.parametrize(
    "lie",
    [
        {"count": 1}, {"here": 1}, {"count": 1, "here": 1},
        {"count": 3, "here": 3}, {"count": 0, "here": 0},
        {"disk": 1}, {"start": 1}, {"size": 10}, {"offset": 0}, {"offset": 0xFFFFFFFF},
    ],
)  # fmt: skip
def test_T_S3_end_record_that_lies_is_rejected(lie):
    refused(crafted([Entry(b"a", b"x"), Entry(b"b", b"y")], end=lie))


@pytest.mark.parametrize("field", range(9))
def test_T_S3_zip64_end_record_that_lies_is_rejected(field):
    entry = Entry(b"a", b"x")
    plain = crafted([entry])
    at = plain.index(b"PK\x01\x02")
    size = len(plain) - 22 - at
    values = [44, 45, 45, 0, 0, 1, 1, size, at]
    values[field] += 1
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *values)
    end64 += struct.pack("<4sLQL", b"PK\x06\x07", 0, at + size, 1)
    if field in (1, 2):  # versions: nobody reads them
        assert Archive(crafted([entry], end64=end64), limit=LIMIT).names == ("a",)
    else:
        refused(crafted([entry], end64=end64))


@pytest.mark.parametrize(
    "locator",
    [
        struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1),
        struct.pack("<4sLQL", b"PK\x06\x07", 1, 33, 1),
        struct.pack("<4sLQL", b"PK\x06\x07", 0, (1 << 64) - 1, 1),
    ],
)
def test_T_S3_zip64_locator_that_points_elsewhere_is_rejected(locator):
    refused(crafted([Entry(b"a", b"x")], end64=locator))


@pytest.mark.parametrize(
    "extra",
    [
        struct.pack("<2HQ", 1, 8, 1),  # a value that no field asks for
        struct.pack("<2H", 1, 8),  # cut off
        struct.pack("<2H", 0x5455, 500),  # another field that is cut off
        struct.pack("<2H", 1, 0) * 2,  # twice
    ],
)
def test_T_S3_extra_field_that_does_not_fit_is_rejected(extra):
    refused(crafted([Entry(b"a", b"x", central={"extra": extra})]))


def test_T_S3_archive_in_several_parts_is_rejected():
    refused(crafted([Entry(b"a", b"x", central={"disk": 1})]), "several")
    part = struct.pack("<2HL", 1, 4, 1)
    refused(crafted([Entry(b"a", b"x", central={"disk": 0xFFFF, "extra": part})]), "several")
    first = struct.pack("<2HL", 1, 4, 0)
    data = crafted([Entry(b"a", b"x", central={"disk": 0xFFFF, "extra": first})])
    assert Archive(data, limit=LIMIT).names == ("a",)


def test_T_S3_local_zip64_sizes_that_nothing_asks_for_are_rejected():
    wide = struct.pack("<2H2Q", 1, 16, 1, 1)
    refused(crafted([Entry(b"a", b"x", method=0, local={"extra": wide})]), "two ways")


def test_T_S3_local_zip64_sizes_that_differ_are_rejected():
    full = 0xFFFFFFFF
    wide = struct.pack("<2H2Q", 1, 16, 99, 99)
    entry = Entry(b"a", b"x", local={"size": full, "packed": full, "extra": wide})
    refused(crafted([entry]), "two ways")


@pytest.mark.parametrize("descriptor", [b"", b"\0" * 12, b"PK\x07\x08" + b"\0" * 12, b"\0" * 13])
def test_T_S3_descriptor_that_disagrees_is_rejected(descriptor):
    entry = Entry(b"a", b"content", flags=8, descriptor=descriptor)
    refused(crafted([entry, Entry(b"b", b"x")]), "descriptor")


def test_T_S3_stored_content_with_two_sizes_is_rejected():
    entry = Entry(b"a", b"12345", method=0)
    entry.local = entry.central = {"size": 4}
    refused(crafted([entry]), "two sizes")


def test_T_S3_compressed_content_that_ends_early_or_late_is_rejected():
    whole = deflated(b"content" * 100)
    for packed in (whole[:-1], whole + b"\0", whole + whole, b"\xff\xff"):
        refused(crafted([Entry(b"a", b"content" * 100, packed=packed)]), "damaged")


@pytest.mark.parametrize("method", [1, 9, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93, 99])
def test_T_S3_other_methods_are_rejected(method):
    refused(crafted([Entry(b"a", b"x", method=method, packed=b"x")]), f"method {method}")


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x2000, 0x20])
def test_T_S3_encrypted_or_patched_entry_is_rejected(flags):
    refused(crafted([Entry(b"a", b"x", flags=flags)]), "encrypted")


def test_T_S3_directory_that_is_cut_or_continues_is_rejected():
    good = crafted([Entry(b"a", b"x"), Entry(b"b", b"y")])
    at = good.index(b"PK\x01\x02")
    refused(good[:at] + b"XX" + good[at + 2 :])
    refused(crafted([Entry(b"a", b"x", central={"name": b"a" * 60_000})]))
