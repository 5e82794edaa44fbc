"""One function per back-call; ``given`` are the parameters of the tool or the endpoint's body."""

import io
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from dify_plugin.core.entities.invocation import InvokeType
from dify_plugin.core.runtime import BackwardsInvocation, Session
from dify_plugin.entities.model.llm import LLMModelConfig
from dify_plugin.entities.model.message import UserPromptMessage
from dify_plugin.entities.model.moderation import ModerationModelConfig
from dify_plugin.entities.model.rerank import MultiModalRerankModelConfig, RerankModelConfig
from dify_plugin.entities.model.speech2text import Speech2TextModelConfig
from dify_plugin.entities.model.text_embedding import (
    MultiModalContent,
    MultiModalEmbeddingModelConfig,
    TextEmbeddingModelConfig,
)
from dify_plugin.entities.model.tts import TTSModelConfig
from dify_plugin.entities.workflow_node import (
    ClassConfig,
    ModelConfig,
    ParameterConfig,
)

type Given = dict[str, Any]
type Results = Iterator[dict[str, Any]]

MYSELF = "tidegate/backcaller/backcaller"


def ask(session: Session, given: Given) -> Results:
    """The results of the function that ``what`` names, and the text of what the SDK raised."""
    try:
        yield from globals()["ask_" + given["what"]](session, given)
    except Exception as error:
        yield {"error": str(error)}


def _place(given: Given) -> Given:
    return {
        "provider": given.get("provider", "tidegate/zoo/zoo"),
        "model": given.get("model", "m1"),
    }


def _llm_config(given: Given) -> LLMModelConfig:
    parameters = given.get("completion_params", {})
    return LLMModelConfig(**_place(given), mode="chat", completion_params=parameters)


def _messages(given: Given) -> list[Any]:
    return [UserPromptMessage(content=given.get("prompt", "hi"))]


def ask_llm(session: Session, given: Given) -> Results:
    pause = float(given.get("pause", 0))
    for chunk in session.model.llm.invoke(_llm_config(given), _messages(given), stream=True):
        yield {"text": chunk.delta.message.content}
        time.sleep(pause)


def ask_llm_whole(session: Session, given: Given) -> Results:
    result = session.model.llm.invoke(_llm_config(given), _messages(given), stream=False)
    yield {"text": result.message.content, "tokens": result.usage.total_tokens}


def ask_structured(session: Session, given: Given) -> Results:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    result = session.model.llm_structured_output.invoke(
        _llm_config(given), _messages(given), schema, stream=bool(given.get("stream"))
    )
    if given.get("stream"):
        for chunk in result:
            yield {"text": chunk.delta.message.content, "object": chunk.structured_output}
    else:
        yield {"text": result.message.content, "object": result.structured_output}


def ask_embedding(session: Session, given: Given) -> Results:
    config = TextEmbeddingModelConfig(**_place(given))
    result = session.model.text_embedding.invoke(config, ["a", "b"])
    yield {"embeddings": result.embeddings}


def ask_multimodal_embedding(session: Session, given: Given) -> Results:
    config = MultiModalEmbeddingModelConfig(**_place(given), tenant_id="another tenant")
    documents = [MultiModalContent(content="a", content_type="text")]
    result = session.model.text_embedding.invoke_multimodal(config, documents)
    yield {"embeddings": result.embeddings}


def ask_rerank(session: Session, given: Given) -> Results:
    config = RerankModelConfig(**_place(given), score_threshold=0.0, top_n=2)
    result = session.model.rerank.invoke(config, ["one", "two"], "which")
    yield {"docs": [doc.text for doc in result.docs]}


def ask_multimodal_rerank(session: Session, given: Given) -> Results:
    config = MultiModalRerankModelConfig(**_place(given), score_threshold=0.0, top_n=2)
    one, two, which = (
        MultiModalContent(content=text, content_type="text") for text in ("one", "two", "which")
    )
    result = session.model.rerank.invoke_multimodal(config, which, [one, two])
    yield {"docs": [doc.index for doc in result.docs]}


def ask_tts(session: Session, given: Given) -> Results:
    config = TTSModelConfig(**_place(given), voice="alto")
    for piece in session.model.tts.invoke(config, "say this"):
        yield {"audio": piece.hex()}


def ask_speech2text(session: Session, given: Given) -> Results:
    config = Speech2TextModelConfig(**_place(given))
    yield {"text": session.model.speech2text.invoke(config, io.BytesIO(b"sound"))}


def ask_moderation(session: Session, given: Given) -> Results:
    config = ModerationModelConfig(**_place(given))
    yield {"bad": session.model.moderation.invoke(config, given.get("text", "a bad word"))}


def ask_summary(session: Session, given: Given) -> Results:
    yield {"summary": session.model.summary.invoke("long " * 300, "be brief")}


def ask_tool(session: Session, given: Given) -> Results:
    found = session.tool.invoke_builtin_tool(
        given.get("provider", "time"), given.get("tool", "now"), given.get("parameters", {})
    )
    for message in found:
        yield {"type": message.type.value, "message": message.message.model_dump()}


def ask_workflow_tool(session: Session, given: Given) -> Results:
    for message in session.tool.invoke_workflow_tool("flow", "run", {}):
        yield {"type": message.type.value}


def ask_chat(session: Session, given: Given) -> Results:
    yield from session.app.chat.invoke("app-1", "q", {"a": 1}, "streaming", "c-1")


def ask_chat_whole(session: Session, given: Given) -> Results:
    yield session.app.chat.invoke("app-1", "q", {}, "blocking")


def ask_completion(session: Session, given: Given) -> Results:
    yield session.app.completion.invoke("app-1", {}, "blocking")


def ask_workflow(session: Session, given: Given) -> Results:
    yield from session.app.workflow.invoke("app-1", {}, "streaming")


def ask_app(session: Session, given: Given) -> Results:
    yield dict(session.app.fetch_app("app-1"))


def _node_model() -> ModelConfig:
    return ModelConfig(provider="tidegate/zoo/zoo", name="m1", mode="chat", completion_params={})


def ask_parameters(session: Session, given: Given) -> Results:
    wanted = ParameterConfig(name="city", type="string", description="where", required=True)
    result = session.workflow_node.parameter_extractor.invoke([wanted], _node_model(), "in Rome")
    yield result.model_dump()


def ask_classes(session: Session, given: Given) -> Results:
    classes = [ClassConfig(id="1", name="cats"), ClassConfig(id="2", name="dogs")]
    result = session.workflow_node.question_classifier.invoke(classes, _node_model(), "meow")
    yield result.model_dump()


def ask_upload(session: Session, given: Given) -> Results:
    yield session.file.upload("a.txt", b"content", "text/plain").model_dump(mode="json")


def ask_storage(session: Session, given: Given) -> Results:
    key, opt = given["key"], given["opt"]
    if opt == "set":
        session.storage.set(key, b"x" * int(given.get("size", 3)))
        yield {"done": "set"}
    elif opt == "get":
        yield {"size": len(session.storage.get(key))}
    elif opt == "del":
        session.storage.delete(key)
        yield {"done": "del"}
    else:
        yield {"there": session.storage.exist(key)}


def ask_raw(session: Session, given: Given) -> Results:
    """Any request, as it stands: types and fields that the SDK would not send."""
    call = BackwardsInvocation(session)
    yield from call._full_duplex_backwards_invoke(  # noqa: SLF001
        uuid.uuid4().hex, InvokeType(given["type"]), dict, given["request"]
    )


def ask_forged(session: Session, given: Given) -> Results:
    """A back-call in the name of another session, waited for with a reader of our own."""
    request_id = uuid.uuid4().hex
    request = {"type": given["type"], "backwards_request_id": request_id, "request": {"a": 1}}
    message = {"type": "invoke", "data": request}
    event = {"event": "session", "session_id": given["session"], "data": message}
    mine = lambda data: data.data.get("backwards_request_id") == request_id  # noqa: E731
    with session.reader.read(mine) as reader:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
        for answer in reader.read(timeout_for_round=1):
            if answer is None:
                continue
            yield dict(answer.data)
            if answer.data["event"] == "end":
                return


def ask_spoken(session: Session, given: Given) -> Results:
    """Say things in the name of another session, as its plugin would: a chunk, an error, an end."""
    for message in given["messages"]:
        event = {"event": "session", "session_id": given["session"], "data": message}
        sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
    yield {"said": len(given["messages"])}


def ask_malformed(session: Session, given: Given) -> Results:
    """A back-call without a type."""
    request = {"backwards_request_id": uuid.uuid4().hex, "request": {}}
    message = {"type": "invoke", "data": request}
    event = {"event": "session", "session_id": session.session_id, "data": message}
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
    time.sleep(30)
    yield {"error": "the session went on"}


def ask_nested(session: Session, given: Given) -> Results:
    """A tool that is this plugin's own, ``depth`` times; the last one stores a value."""
    depth = int(given["depth"])
    if depth == 0:
        session.storage.set("deep", b"down")
        yield {"depth": 0, "stored": session.storage.get("deep").decode()}
        return
    deeper = {"what": "nested", "depth": depth - 1}
    for message in session.tool.invoke_builtin_tool(MYSELF, "ask", deeper):
        yield {"depth": depth, "below": message.message.json_object}


def ask_from_thread(session: Session, given: Given) -> Results:
    """Another function, in a thread of its own."""
    found: list[dict[str, Any]] = []
    inner = {**given, "what": given["inner"]}
    thread = threading.Thread(target=lambda: found.extend(ask(session, inner)))
    thread.start()
    thread.join()
    yield from found


def ask_two(session: Session, given: Given) -> Results:
    """No back-call: two results, for tools that are called by others."""
    yield {"n": 1}
    yield {"n": 2}


def ask_many(session: Session, given: Given) -> Results:
    """``count`` times another function at once; how many results each brought."""
    found: list[list[dict[str, Any]]] = [[] for _ in range(int(given["count"]))]
    inner = {**given, "what": given["inner"]}
    threads = [
        threading.Thread(target=lambda results=results: results.extend(ask(session, inner)))
        for results in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield {"counts": [len(results) for results in found], "first": found[0][:1]}


def ask_agent(session: Session, given: Given) -> Results:
    """What an agent does: two model calls, three tools."""
    for round in range(2):
        for chunk in session.model.llm.invoke(_llm_config(given), _messages(given), stream=True):
            yield {"text": chunk.delta.message.content}
        for _ in range(1 + round):
            tool = session.tool.invoke_builtin_tool(
                given.get("tool_provider", "time"),
                given.get("tool", "now"),
                given.get("parameters", {}),
            )
            for message in tool:
                yield {"type": message.type.value}
