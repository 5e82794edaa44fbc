"""Whatever bytes come in: a package or PackageRejected, in bounded time and memory."""

import io
import zipfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.crafted_packages import LIMIT, Entry, crafted, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import open_package
from tidegate.packages.archive import Archive
from tidegate.packages.names import decode_name

GOOD = zipped(plugin())
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda name: name.strip("/. ")
)


def opened(data: bytes):
    """All contents, or None when the archive is refused; any other error is a failure."""
    try:
        return dict(Archive(data, limit=LIMIT).contents())
    except PackageRejected:
        return None


@settings(max_examples=200)
@given(st.binary(max_size=2000))
@example(b"PK\x05\x06" + b"\xff" * 18)
def test_T_S3_any_bytes_are_an_archive_or_refused(data):
    opened(data)


@settings(max_examples=400)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 12))
def test_T_S3_damaged_archive_is_refused_or_still_means_the_same(at, patch, cut):
    data = GOOD[:at] + patch + GOOD[at + cut :]
    found = opened(data)
    # What survives a change touched nothing that has a meaning (a time, a version).
    assert found is None or found == plugin()


@settings(max_examples=150)
@given(
    st.lists(
        st.builds(
            Entry,
            name=st.one_of(NAMES.map(str.encode), st.binary(max_size=12)),
            content=st.binary(max_size=200),
            method=st.sampled_from([0, 8, 8, 8, 12]),
            flags=st.sampled_from([0, 0, 0, 8, 0x800, 1]),
            mode=st.sampled_from([0, 0o100644, 0o120777, 0o040755]),
        ),
        max_size=6,
    )
)
def test_T_S3_what_we_read_is_what_the_standard_library_reads(written):
    data = crafted(written)
    found = opened(data)
    if found is None:
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        theirs = [archive.read(entry) for entry in archive.infolist()]
    assert list(found.values()) == theirs == [entry.content for entry in written]


@settings(max_examples=300)
@given(st.one_of(NAMES, st.text(alphabet="./\\:aA\0é", max_size=12)))
def test_T_S1_accepted_name_stays_inside_whatever_it_is(name):
    try:
        cleaned = decode_name(name.encode())
    except PackageRejected:
        return
    parts = cleaned.split("/")
    assert ".." not in parts
    assert "" not in parts
    assert not cleaned.startswith("/")


@settings(max_examples=150)
@given(st.binary(max_size=400))
@example(b"&a [*a]")
@example(b"? [complex]\n: key")
@example(b"!!python/object/apply:os.system [id]")
def test_T_S4_any_manifest_is_one_or_refused(content):
    data = zipped(plugin() | {"manifest.yaml": content})
    with pytest.raises(PackageRejected):
        open_package(data, limit=LIMIT)


@settings(max_examples=150)
@given(st.text(alphabet=" \n-:?{}[]&*!|>'\"#%@`,abtrue0.~<", max_size=120))
def test_T_S4_any_yaml_of_a_tool_is_decoded_or_refused(text):
    package = open_package(zipped(plugin(tools___today__yaml=text)), limit=LIMIT)
    try:
        tool = package.declaration(verified=False)["tool"]["tools"][0]
    except PackageRejected:
        return
    assert tool["identity"].keys() == {"author", "name", "label"}
