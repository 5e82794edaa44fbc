"""An opened package: its files, readmes, and what it does not hold."""

import pytest

from tests.crafted_packages import LIMIT, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import open_package


def test_files_are_read_by_name():
    package = open_package(zipped(plugin(), comment=b"note"), limit=LIMIT)
    assert set(package.names) == set(plugin())
    assert "main.py" in package
    assert package.read("main.py") == plugin()["main.py"]
    assert package.size("main.py") == len(plugin()["main.py"])
    assert package.comment == b"note"
    assert package.category == "tool"
    assert package.runner.entrypoint == "main"
    with pytest.raises(PackageRejected, match=r"nothing\.py is not in the package acme/weather"):
        package.read("nothing.py")


def test_readmes_are_found_by_language():
    readmes = {
        "README.md": b"English",
        "readme/README_zh_Hans.md": "中文".encode(),
        "readme/README_ja_JP.md": b"\xff broken",
        "readme/README_xx.md": b"",
        "readme/README_en_US.md": b"not this one",
        "docs/README_pt_BR.md": b"",
    }
    package = open_package(zipped(plugin() | readmes), limit=LIMIT)
    assert package.readme_languages == ("en_US", "zh_Hans", "ja_JP")
    assert package.readme() == "English"
    assert package.readme("zh_Hans") == "中文"
    assert package.readme("ja_JP") == "\ufffd broken"
    assert package.readme("pt_BR") is None


def test_package_without_readme_has_none():
    package = open_package(zipped(plugin()), limit=LIMIT)
    assert package.readme() is None
    assert package.readme_languages == ()


def test_damaged_file_is_noticed_when_the_package_is_opened():
    data = bytearray(zipped(plugin(), method=0))
    data[data.index(b"print('hello')")] ^= 1
    with pytest.raises(PackageRejected, match=r"main\.py.* is damaged"):
        open_package(bytes(data), limit=LIMIT)
