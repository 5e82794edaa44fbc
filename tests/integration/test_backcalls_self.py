"""TIDEGATE_BACKCALLS=self: back-calls answered by the plugins that are installed here."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from tests.backcall_world import TENANT, World, back_call_world, results
from tests.databases import Backend
from tests.hosting import PLUGINS
from tests.patience import patience
from tidegate.backcalls.keyring import seal_credentials
from tidegate.backcalls.vault import Vault
from tidegate.storage import credentials

ZOO = "tidegate/zoo/zoo"
MYSELF = "tidegate/backcaller/backcaller"
EXAMPLES = PLUGINS.parent.parent / "examples"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, backend: Backend):
    """One host with the backcaller, the zoo and the sample tool; one back-call at a time."""
    home = tmp_path_factory.mktemp("self")
    environ = {"TIDEGATE_BACKCALLS": "self", "TIDEGATE_BACKCALLS_AT_ONCE": "1"}
    with backend.fresh(ends=False) as servers, back_call_world(home, **environ, **servers) as world:
        world.add(PLUGINS / "zoo")
        world.add(EXAMPLES / "hello")
        backcaller = world.add(PLUGINS / "backcaller")
        world.ask(backcaller, "moderation")  # opens links and databases, which then stay
        world.ask(backcaller, "storage", opt="set", key="k")
        yield world, backcaller


@pytest.fixture
def world(shared) -> World:
    return shared[0]


@pytest.fixture
def backcaller(shared) -> str:
    return shared[1]


def keep(world: World, provider: str, values: dict[str, Any], *place: str) -> None:
    """What ``tidegate credential set`` does."""
    model_type, model = place or ("", "")
    sealed = seal_credentials(Vault(world.settings), TENANT, provider, model_type, model, values)
    with world.database.write() as conn:
        credentials.put(conn, TENANT, provider, model_type, model, sealed)


EXPECTED: dict[str, Any] = {
    "llm_whole": [{"text": "m1 heard hi with nothing for u1", "tokens": 3}],
    "embedding": [{"embeddings": [[1.0], [1.0]]}],
    "multimodal_embedding": [{"embeddings": [[1.0]]}],
    "rerank": [{"docs": ["two", "one"]}],
    "multimodal_rerank": [{"docs": [1, 0]}],
    "tts": [{"audio": b"say".hex()}, {"audio": b"this".hex()}],
    "speech2text": [{"text": "sound"}],
    "moderation": [{"bad": True}],
    "summary": [{"summary": "m1 read 1500 characters"}],
}


@pytest.mark.parametrize("what", EXPECTED)
def test_each_type_of_model_is_answered_by_its_plugin(world, backcaller, what):
    assert world.ask(backcaller, what) == EXPECTED[what]
    assert world.wait_idle()


def test_a_stream_comes_word_by_word(world, backcaller):
    found = world.ask(backcaller, "llm")
    assert "".join(one["text"] for one in found) == "m1 heard hi with nothing for u1"
    assert len(found) == 7


def test_a_tool_of_another_plugin_is_called(world, backcaller):
    found = world.ask(
        backcaller,
        "tool",
        provider="tidegate/hello/hello",
        tool="greet",
        parameters={"name": "Ada"},
    )
    assert "".join(one["message"]["text"] for one in found) == "Hello, Ada! Nice to meet you.\n"


def test_a_file_of_a_tool_arrives_whole(world, backcaller):
    """The SDK cuts it into parts, and a plugin that calls a tool has no use for those."""
    (found,) = world.ask(
        backcaller, "tool", provider=MYSELF, tool="ask", parameters={"what": "file"}
    )
    assert found["type"] == "blob"
    assert found["message"] == {"blob": "x" * 20_000}


def test_a_provider_may_be_named_by_one_word(world, backcaller):
    found = world.ask(backcaller, "moderation", provider="zoo", text="all good")
    assert found == [{"bad": False}]


@pytest.mark.parametrize("provider", ["nobody", "acme/zoo/zoo", "tidegate/zoo/other", "a/b", ""])
def test_a_provider_that_is_not_installed_is_named(world, backcaller, provider):
    (answer,) = world.ask(backcaller, "llm", provider=provider)
    assert "error" in answer
    if provider:
        assert f"plugin not installed: no model provider '{provider}'" in answer["error"]


def test_another_tenants_plugins_are_not_there(world, backcaller):
    other = "0198c5d2-0000-7000-8000-00000000000c"
    (answer,) = results(world.start(backcaller, "llm", {}, tenant=other).wait())
    assert "plugin not installed" in answer["error"]


def test_credentials_of_the_operator_are_used_the_models_own_first(world, backcaller):
    keep(world, ZOO, {"word": "provider's"})
    try:
        (answer,) = world.ask(backcaller, "llm_whole", model="plain")
        assert answer["text"] == "plain heard hi with provider's for u1"
        keep(world, ZOO, {"word": "its own"}, "llm", "plain")
        (answer,) = world.ask(backcaller, "llm_whole", model="plain")
        assert "with its own for" in answer["text"]
        (answer,) = world.ask(backcaller, "llm_whole", model="m1")
        assert "with provider's for" in answer["text"]
    finally:
        with world.database.write() as conn:
            credentials.remove(conn, TENANT, ZOO, "", "")
            credentials.remove(conn, TENANT, ZOO, "llm", "plain")


def test_credentials_rest_encrypted(world):
    keep(world, ZOO, {"word": "canary-word"}, "llm", "rest")
    with world.database.write() as conn:
        row = credentials.find(conn, TENANT, ZOO, "llm", "rest")
        assert credentials.remove(conn, TENANT, ZOO, "llm", "rest")
    assert "canary" not in row.sealed
    for path in world.settings.home.root.glob("tidegate.db*"):
        assert b"canary-word" not in path.read_bytes()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "name"), [("m1", "by parameter"), ("plain", "by words")])
def test_structured_output_with_and_without_the_models_help(world, backcaller, stream, model, name):
    found = world.ask(backcaller, "structured", model=model, stream=stream)
    assert found[-1]["object"]["name"] == name
    if model == "m1":
        assert found[-1]["object"]["schema"]["properties"] == {"name": {"type": "string"}}


def test_a_model_that_answers_no_object_is_an_error(world, backcaller):
    (answer,) = world.ask(backcaller, "structured", model="plain", prompt="no json")
    assert "is no JSON object: 'I would rather not'" in answer["error"]


def test_an_error_of_the_model_passes_with_its_type(world, backcaller):
    found = world.ask(
        backcaller,
        "many",
        inner="llm",
        count=1,
        prompt="rate limit",
    )
    assert "slow down" in found[0]["first"][0]["error"]
    assert found[0]["first"][0]["error"].startswith("invoke llm model failed: ")


@pytest.mark.parametrize(
    "what", ["chat", "completion", "workflow", "app", "parameters", "classes", "upload",
             "workflow_tool"]
)  # fmt: skip
def test_what_only_dify_has_says_so_at_once(world, backcaller, what):
    with gevent.Timeout(5):
        (answer,) = world.ask(backcaller, what)
    assert "TIDEGATE_BACKCALLS=self" in answer["error"]
    assert "Dify" in answer["error"]


def test_a_plugin_that_is_installed_later_is_found(world, backcaller):
    assert "error" in world.ask(backcaller, "tool", provider="tidegate/parrot/parrot")[0]
    (answer,) = world.ask(backcaller, "tool", provider="tidegate/hello/hello", tool="nothing")
    assert "error" in answer


# --------------------------------------------------------------------------- nesting


def test_T21_nested_five_deep_with_one_turn_at_a_time_does_not_lock_up(world, backcaller):
    with gevent.Timeout(20):
        (found,) = world.ask(backcaller, "nested", depth=5)
    for depth in range(5, 0, -1):
        assert found["depth"] == depth
        found = found["below"]
    assert found == {"depth": 0, "stored": "down"}
    assert world.wait_idle()


def test_R24_many_nested_runs_at_once_all_finish(world, backcaller):
    """More runs than turns: every one of them waits for others of its own depth only."""
    with gevent.Timeout(40):
        answers = [world.start(backcaller, "nested", {"depth": 3}) for _ in range(12)]
        for answer in answers:
            (found,) = results(answer.wait(40))
            assert found["below"]["below"]["below"] == {"depth": 0, "stored": "down"}
    assert world.wait_idle()


def test_a_caller_that_leaves_takes_every_level_with_it(world, backcaller):
    slow = {"inner": "llm", "count": 1, "completion_params": {"pause": 1.0}}
    answer = world.start(backcaller, "many", slow)
    zoo = next(one for one in world.host.supervisors if "/zoo:" in one.identifier).instance
    with gevent.Timeout(10):
        while not zoo.load:
            gevent.sleep(0.01)
    answer.call.cancel()
    assert world.wait_idle(patience(1))


def test_T15_the_deadline_holds_on_every_level(world, backcaller):
    slow = {"completion_params": {"pause": 5.0}}
    answer = world.start(backcaller, "llm", slow, seconds=1.5)
    assert answer.wait(10).error_type == "DeadlineExceeded"
    assert world.wait_idle(patience(1))


# --------------------------------------------------------------------------- the sample agent


@pytest.fixture(scope="module")
def scout(shared) -> str:
    """The sample agent with the sample model; the sample tool is there."""
    shared[0].add(EXAMPLES / "parrot")
    return shared[0].add(EXAMPLES / "scout")


def test_the_sample_agent_uses_the_sample_model_and_the_sample_tool(world, scout):
    params = {
        "query": "Ada",
        "model": {
            "provider": "tidegate/parrot/parrot",
            "model": "parrot",
            "mode": "chat",
            "completion_params": {"pause": 0},
        },
    }
    data = {
        "agent_strategy_provider": "scout",
        "agent_strategy": "scout",
        "agent_strategy_params": params,
    }
    answer = world.open(scout, "agent_strategy", "invoke_agent_strategy", data).wait()
    assert answer.error is None
    text = "".join(one["message"]["text"] for one in answer.chunks if one["type"] == "text")
    greeting = "Hello, Ada! Nice to meet you.\n"
    assert text.startswith(greeting + "Tides come and go")
    assert text.endswith(greeting)
    steps = [one["message"] for one in answer.chunks if one["type"] == "log"]
    assert [step["status"] for step in steps] == ["start", "success"] * 3
    assert world.wait_idle()


def test_the_sample_agent_needs_nothing_but_a_query(world, scout):
    data = {
        "agent_strategy_provider": "scout",
        "agent_strategy": "scout",
        "agent_strategy_params": {"query": "world"},
    }
    answer = world.open(scout, "agent_strategy", "invoke_agent_strategy", data)
    assert answer.first().error is None
    answer.call.cancel()
    assert world.wait_idle(patience(1))
