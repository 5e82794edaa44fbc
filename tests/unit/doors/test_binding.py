"""Binding: what fits a form, what is refused, and how that is said (spec/http/01 section 1.3)."""

from __future__ import annotations

import pytest

from tests.unit.doors.requests import make_request
from tidegate.doors.binding import (
    IDENTIFIER,
    REQUIRED,
    BindingRefused,
    Form,
    PageForm,
    at_most,
    bind,
    shown_name,
)

IDENTIFIER_TEXT = "acme/weather:0.1.2@" + "9f" * 32


class Sample(Form):
    plugin_unique_identifiers: list[str] | None = None
    source: str = ""
    tenant_id: str = ""
    rules = {
        "plugin_unique_identifiers": (REQUIRED, at_most(2)),
        "source": (REQUIRED,),
    }
    items = {"plugin_unique_identifiers": (IDENTIFIER,)}


def refusal(**request: object) -> str:
    with pytest.raises(BindingRefused) as caught:
        bind(make_request(**request), Sample)  # type: ignore[arg-type]
    assert caught.value.status == 400
    assert caught.value.code == -400
    return caught.value.message


def test_query_and_json_are_both_understood_on_a_get() -> None:
    by_query = bind(make_request(query={"page": "2", "page_size": "5"}), PageForm)
    by_json = bind(make_request(json_body={"page": 2, "page_size": 5}), PageForm)
    both = bind(
        make_request(query={"page": "2", "page_size": 5}, content_type="application/json"), PageForm
    )
    assert by_query == by_json == both == PageForm(page=2, page_size=5)
    assert by_query.offset == 5


def test_a_page_beyond_all_rows_is_a_number_that_databases_take() -> None:
    far = bind(make_request(query={"page": "9" * 30, "page_size": "256"}), PageForm)
    assert far.offset == (1 << 63) - 1


@pytest.mark.parametrize(
    "given",
    [
        {"source": "a\0b", "plugin_unique_identifiers": [IDENTIFIER_TEXT]},
        {"source": "a", "plugin_unique_identifiers": [IDENTIFIER_TEXT, "\0"]},
    ],
)
def test_a_nul_that_no_text_column_of_postgresql_holds_is_refused(given: dict[str, object]) -> None:
    assert "NUL" in refusal(json_body=given)


def test_fields_are_understood_by_the_names_that_messages_show() -> None:
    names = {"Page": 1, "PageSize": 3}
    assert bind(make_request(query=names), PageForm).page_size == 3
    assert bind(make_request(json_body={**names, "page_size": 4}), PageForm).page_size == 4
    assert shown_name("plugin_installation_id") == "PluginInstallationID"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            {},
            "Key: 'Page' Error:Field validation for 'Page' failed on the 'required' tag\n"
            "Key: 'PageSize' Error:Field validation for 'PageSize' failed on the 'required' tag",
        ),
        (
            {"page": 0, "page_size": 5},
            "Key: 'Page' Error:Field validation for 'Page' failed on the 'required' tag",
        ),
        (
            {"page": -1, "page_size": 5},
            "Key: 'Page' Error:Field validation for 'Page' failed on the 'min' tag",
        ),
        (
            {"page": 1, "page_size": 257},
            "Key: 'PageSize' Error:Field validation for 'PageSize' failed on the 'max' tag",
        ),
    ],
)
def test_failed_rules_are_named_as_the_reference_names_them(
    query: dict[str, int], message: str
) -> None:
    with pytest.raises(BindingRefused) as caught:
        bind(make_request(query=query), PageForm)
    assert caught.value.message == message


def test_D_68_a_number_that_is_none_is_told_as_such() -> None:
    with pytest.raises(BindingRefused, match=r"`int`.*\$\.page"):
        bind(make_request(query={"page": "x", "page_size": 5}), PageForm)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"source": ', "not valid JSON"),
        (b'{"source": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
    ],
)
def test_D_68_a_broken_body_is_told_as_such(body: bytes, words: str) -> None:
    assert words in refusal(body=body, content_type="application/json")


def test_path_parameters_win_over_the_body() -> None:
    body = {"plugin_unique_identifiers": [], "source": "package", "tenant_id": "theirs"}
    request = make_request(json_body=body, params={"tenant_id": "mine"})
    assert bind(request, Sample).tenant_id == "mine"


def test_an_empty_list_is_given_and_null_is_not() -> None:
    given = bind(
        make_request(json_body={"plugin_unique_identifiers": [], "source": "x", "more": 1}), Sample
    )
    assert given.plugin_unique_identifiers == []
    assert "'required'" in refusal(json_body={"plugin_unique_identifiers": None, "source": "x"})


def test_each_element_of_a_list_is_checked() -> None:
    body = {"plugin_unique_identifiers": [IDENTIFIER_TEXT, "x"], "source": "package"}
    assert "'PluginUniqueIdentifiers[1]'" in refusal(json_body=body)


def test_a_list_that_is_too_long_is_refused() -> None:
    body = {"plugin_unique_identifiers": [IDENTIFIER_TEXT] * 3, "source": "package"}
    assert "'max'" in refusal(json_body=body)


def test_without_a_content_type_the_body_does_not_count() -> None:
    assert "'Source'" in refusal(method="POST", body=b'{"source":"x"}')


def test_json_with_a_charset_is_json() -> None:
    body = {"plugin_unique_identifiers": [], "source": "x"}
    request = make_request("POST", json_body=body, content_type="application/json; charset=utf-8")
    assert bind(request, Sample).source == "x"


def test_a_web_form_is_understood() -> None:
    request = make_request(
        "POST",
        body=b"source=x&plugin_unique_identifiers=" + IDENTIFIER_TEXT.encode(),
        content_type="application/x-www-form-urlencoded",
    )
    assert bind(request, Sample).plugin_unique_identifiers == [IDENTIFIER_TEXT]
