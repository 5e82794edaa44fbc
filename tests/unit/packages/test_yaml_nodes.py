"""YAML as bounded trees of text."""

import pytest

from tidegate.errors import PackageRejected
from tidegate.packages.shapes import anything, record, text
from tidegate.packages.yaml_nodes import Mapping, Scalar, Sequence, compose


def value(content: str | bytes):
    raw = content.encode() if isinstance(content, str) else content
    return anything(compose(raw, "test.yaml"))


def test_scalars_stay_text():
    node = compose(b"version: 1.10\nauthor: no\ncount: 0x1\n", "test.yaml")
    assert isinstance(node, Mapping)
    assert [item.text for item in node.items.values()] == ["1.10", "no", "0x1"]


def test_byte_order_mark_and_windows_line_ends_are_fine():
    assert value(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n") == {"a": 1, "b": "x\ny\n"}


def test_empty_file_is_nothing():
    assert compose(b"", "test.yaml") is None
    assert compose(b"# only a comment\n", "test.yaml") is None


def test_only_the_first_document_counts():
    assert value("a: 1\n---\nb: [\n") == {"a": 1}


def test_anchors_and_merges_work():
    content = """
base: &base {a: 1, b: 2}
other: &other {b: 3, c: 4}
one: {<<: *base, b: 9}
two: {<<: [*base, *other], d: *base}
"""
    found = value(content)
    assert found["one"] == {"a": 1, "b": 9}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "d": {"a": 1, "b": 2}}


def test_quoted_merge_key_is_an_ordinary_key():
    assert value("{'<<': 1}") == {"<<": 1}


def test_lines_are_known():
    node = compose(b"a:\n  - b\n  - c: d\n", "test.yaml")
    assert isinstance(node, Mapping)
    listed = node.items["a"]
    assert isinstance(listed, Sequence)
    assert [item.line for item in listed.items] == [2, 3]
    assert isinstance(listed.items[0], Scalar)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a: [1", "not valid YAML"),
        ("a: b: c", r"not valid YAML: .*\(line 1\)"),
        (b"a: \xff", "not valid UTF-8"),
        ("a: \x01", "not valid YAML"),
        ("*missing", "alias to nothing"),
        ("a: &a [*a]", "alias to nothing"),
        ("? [1]\n: 2", "key that is no text"),
        ("a: {<<: text}", "merges what is no mapping"),
        ("x: '" + "a" * (2 << 20) + "'", "too large"),
    ],
)
def test_what_is_no_declaration_says_file_and_reason(content, match):
    with pytest.raises(PackageRejected, match=match) as error:
        value(content)
    assert error.value.message.startswith("test.yaml ")


def test_duplicate_key_matters_only_where_somebody_reads_it():
    node = compose(b"a: {x: 1, x: 2}\nb: 3", "test.yaml")
    assert record({"b": text})(node) == {"b": "3"}
    with pytest.raises(Exception, match="has the key 'x' twice"):
        anything(node)
