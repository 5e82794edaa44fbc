"""An installation whose N-th system call fails, for every N: typed, and as if it never was."""

from __future__ import annotations

import itertools
import os
import uuid

import pytest

from tests.faults.failing_calls import ERRORS, failing
from tests.hosting import PLUGINS, package_of, running_host

SOAK = bool(os.environ.get("TIDEGATE_TEST_SOAK"))
STEP = 1 if SOAK else 9

pytestmark = [
    pytest.mark.stretched,
    pytest.mark.limit(1800 if SOAK else 120, "an installation and a start for every N"),
    pytest.mark.blocks_hub("builds packages"),
]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_T_R4_T_R2_an_install_whose_nth_call_fails_is_typed_and_can_be_repeated(tmp_path, lasting):
    """Full, broken, forbidden and read-only in turn; a full disk stays full until it is cleaned."""
    with running_host(tmp_path) as running:
        failures = 0
        for nth in itertools.count(1, STEP):
            name = f"misbehave-{uuid.uuid4().hex[:8]}"
            identifier = running.shelf.add(package_of(PLUGINS / "misbehave", tmp_path, name=name))
            error = ERRORS[nth // STEP % len(ERRORS)]
            with failing(name, nth, error, lasting=lasting) as shim:
                answer = running.control("install", identifier=identifier)
            if answer.error is not None:
                failures += 1
                assert answer.error_type == "InstallFailed", (shim.failed, answer.error)
                assert "internal error" not in answer.error["message"], (shim.failed, answer.error)
            again = running.control("install", identifier=identifier)
            assert again.error is None, (nth, shim.failed, again.error)
            assert running.call(identifier, "echo", text="on").wait().texts == ["on"]
            assert running.control("remove", identifier=identifier).error is None
            if not shim.failed:
                break
        assert failures > 2
