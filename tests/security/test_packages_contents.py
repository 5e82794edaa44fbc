"""T-S4: YAML that grows, icons that act. T-S1 for what the files of a package name."""

import time

import pytest

from tests.crafted_packages import LIMIT, MANIFEST, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import open_package
from tidegate.packages.svg import sanitised
from tidegate.packages.yaml_nodes import MOST_NODES, compose

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)


def declared(tool: str, *, limit: int = 8 * LIMIT):
    package = open_package(zipped(plugin(tools___today__yaml=tool)), limit=limit)
    return package.declaration(verified=False)


def quickly(content: str, match: str) -> None:
    started = time.process_time()
    with pytest.raises(PackageRejected, match=match):
        declared(content)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (LAUGHS, "too many values"),
        (LAUGHS + "output_schema: *i\n", "too many values"),
        ("a: &a {k: 1}\n" + "m: {<<: [" + ", ".join(["*a"] * 20_000) + "]}", "too many values"),
        ("[" * 5000, "nested too deep|not valid YAML"),
        ("{a: " * 5000, "nested too deep|not valid YAML"),
        ("- " * 5000 + "x", "nested too deep|not valid YAML"),
        ("\n".join(" " * n + "a:" for n in range(600)), "nested too deep|not valid YAML"),
        ("a: &a\n  b: *a\n", "alias to nothing"),
        ("x: [" + ", ".join("1" * (MOST_NODES + 1)) + "]", "too many values"),
        ("output_schema: {x: " + "9" * 1_000_000 + "}\ny: " + "z" * 2_000_000, "too large"),
    ],
    ids=lambda value: value[:20],
)
def test_T_S4_yaml_bomb_costs_no_more_than_its_text(content, match):
    quickly(content, match)


def test_T_S4_ten_megabyte_manifest_is_refused():
    manifest = MANIFEST + "# " + "x" * (10 << 20)
    with pytest.raises(PackageRejected, match=r"manifest\.yaml is too large"):
        open_package(zipped(plugin(manifest__yaml=manifest)), limit=64 * LIMIT)


def test_T_S4_many_files_share_one_budget():
    big = "[" + "1," * 40_000 + "]"
    tools = {f"t{n}.yaml": f"output_schema: {{a: {big}}}".encode() for n in range(7)}
    provider = f"identity: {{name: x}}\ntools: [{', '.join(tools)}]"
    files = plugin(provider___weather__yaml=provider) | tools
    package = open_package(zipped(files), limit=8 * LIMIT)
    with pytest.raises(PackageRejected, match="have too many values"):
        package.declaration(verified=False)


def test_T_S4_one_file_named_very_often_shares_the_budget():
    big = "output_schema: {a: [" + "1," * 40_000 + "]}"
    provider = f"identity: {{name: x}}\ntools: [{', '.join(['t.yaml'] * 1000)}]"
    files = plugin(provider___weather__yaml=provider, t__yaml=big)
    with pytest.raises(PackageRejected, match="have too many values"):
        open_package(zipped(files), limit=8 * LIMIT).declaration(verified=False)


def test_T_S4_long_texts_are_not_written_out_by_aliases():
    """Five thousand aliases of a text of 100 kB made half a gigabyte of JSON."""
    text = f"output_schema:\n  a: &a {'x' * 100_000}\n  b: [{', '.join(['*a'] * 5000)}]\n"
    quickly(text, "too many values")


def test_T_S4_a_file_of_comments_that_is_named_very_often_shares_the_budget():
    provider = f"identity: {{name: x}}\ntools: [{', '.join(['t.yaml'] * 1000)}]"
    files = plugin(provider___weather__yaml=provider, t__yaml="#\n" * 1_000_000 + "a: b")
    with pytest.raises(PackageRejected, match="have too many values"):
        open_package(zipped(files), limit=8 * LIMIT).declaration(verified=False)


def test_T_S4_directives_that_are_compared_with_each_other_are_refused():
    """170,000 of them fit into 2 MB and held the interpreter for more than a minute."""
    quickly("".join(f"%TAG !{n:x}! b\n" for n in range(100_000)) + "--- a", "%TAG")
    assert compose(b"%TAG !a! b\n--- !a!c d", "x") is not None


def test_T_S4_tags_never_make_objects():
    content = "output_schema: {a: !!python/object/apply:os.getpid [], b: !x y, c: !!binary aGk=}"
    assert declared(content)["tool"]["tools"][0]["output_schema"] == {
        "a": [],
        "b": "y",
        "c": "aGk=",
    }


def test_T_S4_aliases_within_the_bounds_are_written_out():
    node = compose(b"a: &a [1, 2]\nb: [*a, *a]\n", "x")
    assert node is not None
    assert node.size == 13  # keys count as well


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {}>{}</svg>'
)


@pytest.mark.parametrize(
    ("attributes", "inside"),
    [
        ("", "<script>alert(1)</script>"),
        ("", "<SCRIPT>alert(1)</SCRIPT>"),
        ("", '<svg:script xmlns:svg="http://www.w3.org/2000/svg">alert(1)</svg:script>'),
        ("", "<g><script><![CDATA[alert(1)]]></script></g>"),
        ('onload="alert(1)"', ""),
        ('onLoad="alert(1)"', ""),
        ("", '<rect ONCLICK="alert(1)"/>'),
        ("", '<a xlink:href="javascript:alert(1)"><text>x</text></a>'),
        ("", '<a href=" java&#10;script:alert(1)"/>'),
        ("", '<a href="JaVaScRiPt:alert(1)"/>'),
        ("", '<a href="vbscript:alert(1)"/>'),
        ("", '<use href="data:image/svg+xml;base64,alert(1)"/>'),
        ("", '<image href="data:text/html,alert(1)"/>'),
        ("", "<foreignObject><iframe src='alert(1)'/></foreignObject>"),
        ("", '<animate attributeName="href" values="javascript:alert(1)"/>'),
        ("", '<set attributeName="xlink:href" to="javascript:alert(1)"/>'),
        ("", '<set attributeName="onclick" to="alert(1)"/>'),
        ("", '<rect style="background:url(javascript:alert(1))"/>'),
        ("", '<handler type="text/ecmascript">alert(1)</handler>'),
        ("", "<html:body xmlns:html='http://www.w3.org/1999/xhtml'>alert(1)</html:body>"),
    ],
)
def test_T_S4_active_part_of_an_icon_is_taken_out(attributes, inside):
    content = SVG.format(attributes, f"<title>a &lt;b&gt; &amp; c</title>{inside}").encode()
    cleaned = sanitised("icon.svg", content)
    assert b"alert(1)" not in cleaned
    assert b"<title>a &lt;b&gt; &amp; c</title>" in cleaned
    assert sanitised("icon.svg", cleaned) is cleaned


def test_T_S4_script_that_an_entity_brings_is_taken_out():
    content = '<!DOCTYPE svg [<!ENTITY e "<script>alert(1)</script>">]>' + SVG.format(
        "", "<g>&e;</g>"
    )
    assert b"alert(1)" not in sanitised("icon.svg", content.encode())


def test_T_S4_style_sheet_instruction_and_external_entity_are_taken_out():
    sheet = '<?xml-stylesheet href="evil.xsl" type="text/xsl"?>' + SVG.format("", "<g/>")
    assert b"evil" not in sanitised("icon.svg", sheet.encode())
    outside = '<!DOCTYPE svg [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + SVG.format("", "&e;")
    assert b"root:" not in sanitised("icon.svg", outside.encode())
    assert b"passwd" not in sanitised("icon.svg", outside.encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"no svg", b"<svg><g></svg>", b"<svg>" * 10, b"<svg>&undefined;</svg>", b"\xff\xfe<"],
)
def test_T_S4_icon_that_is_no_xml_is_refused(content):
    with pytest.raises(PackageRejected, match="no well-formed SVG"):
        sanitised("icon.svg", content)


def test_T_S4_entities_that_grow_are_refused():
    grown = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 9))
    bomb = f'<!DOCTYPE svg [<!ENTITY e0 "xxxxxxxxxx">{grown}]><svg>&e8;</svg>'
    with pytest.raises(PackageRejected, match="no well-formed SVG"):
        sanitised("icon.svg", bomb.encode())


def test_T_S4_attributes_that_a_dtd_adds_to_every_element_are_refused():
    """2,000 for 2,000 elements took 25 s; 100,000 by themselves nobody has waited for."""
    many = " ".join(f'x{n} CDATA "v"' for n in range(11))
    with pytest.raises(PackageRejected, match="declares more than 10 attributes"):
        sanitised("icon.svg", f"<!DOCTYPE svg [<!ATTLIST svg {many}>]><svg/>".encode())
    few = b'<!DOCTYPE svg [<!ATTLIST svg xmlns:x CDATA #FIXED "http://x">]><svg/>'
    assert sanitised("icon.svg", few) == few


def test_T_S4_icon_that_is_too_large_is_refused():
    with pytest.raises(PackageRejected, match="over 8388608 bytes"):
        sanitised("icon.svg", b"<svg>" + b"<b/>" * (2 << 20) + b"</svg>")


@pytest.mark.parametrize("name", ["icon.html", "icon.HTM", "icon.xhtml", "icon.xml", "icon.svgz"])
def test_T_S4_icon_that_is_no_image_is_refused(name):
    manifest = MANIFEST.replace("icon: icon.svg", f"icon: {name}")
    files = plugin(manifest__yaml=manifest) | {f"_assets/{name}": b"<script>alert(1)</script>"}
    package = open_package(zipped(files), limit=LIMIT)
    with pytest.raises(PackageRejected, match="is no image"):
        package.declaration_with_assets(verified=False)


@pytest.mark.parametrize(
    "name", ["../main.py", "/etc/passwd", "../_assets/icon.svg", "a/../icon.svg"]
)
def test_T_S1_icon_name_reaches_nothing_outside_the_assets(name):
    manifest = MANIFEST.replace("icon: icon.svg", f"icon: {name}")
    package = open_package(zipped(plugin(manifest__yaml=manifest)), limit=LIMIT)
    with pytest.raises(PackageRejected, match="file not found"):
        package.declaration_with_assets(verified=False)
