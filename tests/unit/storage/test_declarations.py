"""Declarations: the first upload's text stays, as it was."""

from __future__ import annotations

from tidegate.storage import Database, declarations, generation

IDENTIFIER = f"acme/weather:0.0.1@{'a' * 64}"
TEXT = '{"b":1e2,"a":"\\u0000 é 18446744073709551616"}'


def test_text_comes_back_byte_for_byte(database: Database) -> None:
    with database.write() as conn:
        assert declarations.put_if_absent(conn, IDENTIFIER, TEXT)
    with database.read() as conn:
        found = declarations.get(conn, IDENTIFIER)
    assert found is not None
    assert (found.text, found.plugin_id, found.identifier) == (TEXT, "acme/weather", IDENTIFIER)


def test_the_first_upload_stays(database: Database) -> None:
    with database.write() as conn:
        declarations.put_if_absent(conn, IDENTIFIER, TEXT)
        before = generation.current(conn)
        assert not declarations.put_if_absent(conn, IDENTIFIER, "{}")
        assert generation.current(conn) == before
        found = declarations.get(conn, IDENTIFIER)
    assert found is not None
    assert found.text == TEXT


def test_delete_forgets_it_once(database: Database) -> None:
    with database.write() as conn:
        declarations.put_if_absent(conn, IDENTIFIER, TEXT)
        assert declarations.delete(conn, IDENTIFIER)
        assert not declarations.delete(conn, IDENTIFIER)
        assert declarations.get(conn, IDENTIFIER) is None


def test_many_at_once_leave_out_what_is_missing(database: Database) -> None:
    with database.write() as conn:
        declarations.put_if_absent(conn, IDENTIFIER, TEXT)
        found = declarations.get_many(conn, [IDENTIFIER, "acme/none:0.0.1@x"])
        assert list(found) == [IDENTIFIER]
        assert declarations.get_many(conn, []) == {}
