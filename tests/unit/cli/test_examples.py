"""The key that signs the examples: made once, whole, trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tidegate.cli import examples
from tidegate.settings import Home


@pytest.mark.parametrize("written", [0, 1])
def test_a_key_whose_making_was_interrupted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    home = Home(tmp_path)
    home.keys.mkdir()
    monkeypatch.setattr(examples, "_BITS", 2048)
    left = [written]

    def interrupted(path: Path, data: bytes) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(examples, "write_whole", interrupted)
        with pytest.raises(KeyboardInterrupt):
            examples._signing_key(home)
    private = examples._signing_key(home)
    assert examples._signing_key(home) == private, "and then it stays"
    key = serialization.load_pem_private_key(private, password=None)
    trusted = serialization.load_pem_public_key(
        (home.keys / "trusted" / "examples.pem").read_bytes()
    )
    assert key.public_key() == trusted
    assert (home.keys / "examples.private.pem").stat().st_mode & 0o777 == 0o600
