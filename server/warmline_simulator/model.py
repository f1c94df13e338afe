"""The small model: what the simulator says when no script does. Deterministic by seed and request; does no I/O.

Rules, in this order:
1. `generate: false`: created, completed, no output.
2. Tool outputs after the last user message: it says what each of them answered.
3. `tool_choice` asks for a tool, or the last user message says "use the tool NAME" (or "call NAME"), or it says
   "weather" and a tool has weather in its name: it calls the tool with arguments its schema accepts. Tools that the
   service runs itself (web search) are followed by an answer.
4. `text.format` asks for JSON: it answers with JSON the schema accepts.
5. Otherwise it repeats the beginning of the last user message and goes on in words of its own.
With `reasoning` it reasons first. `max_output_tokens` cuts its message; a token is a word here.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from warmline_simulator import ev, schema, tools
from warmline_simulator.read import item_type, text_of
from warmline_simulator.script import Pause, Step, TextDeltas
from warmline_simulator.settings import Settings

Json = dict[str, Any]

PROSE = (
    "the line stays warm while a quiet socket waits for its next turn and every word travels on its own so that "
    "nobody has to wonder whether the answer is still coming or the model has simply stopped to think about it"
)
WORDS = tuple(PROSE.split())
ECHOED_WORDS = 24
"""How much of the user's message the answer repeats."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request that was found valid, and what is known around it."""

    response_id: str
    body: Mapping[str, Any]
    visible: Sequence[Json]
    """The conversation the model sees, oldest first."""
    known_tokens: int
    """Tokens of the response it continues; 0 for a full request."""
    settings: Settings
    is_paced: bool = True
    """There is silence between the words."""
    is_steered: Callable[[], bool] = field(default=_never)
    """Asked before each word; once true the answer ends at that word."""


def pace_s(body: Mapping[str, Any], settings: Settings) -> float:
    """Silence between words: the request's metadata `sim_pace_s`, else the simulator's."""
    return _metadata_number(body, "sim_pace_s", settings.pace_s)


def _metadata_number(body: Mapping[str, Any], name: str, absent: float) -> float:
    metadata = body.get("metadata")
    given = metadata.get(name) if isinstance(metadata, dict) else None
    try:
        value = float(given) if isinstance(given, str) else absent
    except ValueError:
        return absent
    return value if 0 <= value < 1e6 else absent


def answer(question: Question) -> Iterator[Step]:
    """Every step of the answer, terminal event last."""
    base = _response_base(question)
    yield {"type": "response.created", "response": {**base, "status": "in_progress"}}
    if _is_warm_up(question.body):
        yield _final(question, base, "completed", [])
        return
    yield {"type": "response.in_progress", "response": {**base, "status": "in_progress"}}
    delay_s = _metadata_number(question.body, "sim_first_delay_s", question.settings.first_delay_s)
    if delay_s > 0:
        yield Pause(delay_s)
    output, is_cut = _fit(_output(question), question.body.get("max_output_tokens"))
    done: list[Json] = []
    for index, item in enumerate(output):
        if question.is_steered():
            break
        if question.is_paced or item["type"] != "message":
            for event in ev.item_events(item, index, stop=question.is_steered):
                if event["type"] == "response.output_item.done":
                    done.append(event["item"])
                yield event
        else:
            done.append(item)
            yield from _message_at_once(item, index)
    if question.is_steered() and not tools.owed(done):
        yield _final(question, base, "incomplete", done, reason="steered")
    elif is_cut:
        yield _final(question, base, "incomplete", done, reason="max_output_tokens")
    else:
        yield _final(question, base, "completed", done)


def _message_at_once(item: Json, index: int) -> Iterator[Step]:
    """The events of a message with one text part, its deltas in their fast form; nothing can interrupt them."""
    part = item["content"][0]
    place = {"item_id": item["id"], "output_index": index}
    yield ev.item_added({**item, "status": "in_progress", "content": []}, index)
    yield ev.content_part_added(**place)
    yield TextDeltas(ev.pieces(part["text"]), item["id"], index)
    yield ev.text_done(part["text"], **place)
    yield ev.content_part_done(part, **place)
    yield ev.item_done(item, index)


def _is_warm_up(body: Mapping[str, Any]) -> bool:
    options = body.get("prompt_cache_options")
    return body.get("generate") is False or (isinstance(options, dict) and options.get("prewarm") is True)


_ECHOED_FIELDS = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
)


def _response_base(question: Question) -> Json:
    body = question.body
    base = ev.response_object(question.response_id, model=str(body.get("model")), created_at=int(time.time()))
    base.update({name: body[name] for name in _ECHOED_FIELDS if body.get(name) is not None})
    base["store"] = body.get("store") is not False
    base["background"] = False
    tier = body.get("service_tier")
    base["service_tier"] = "default" if tier in (None, "auto") else tier
    return base


def _final(question: Question, base: Json, status: str, output: Sequence[Json], *, reason: str | None = None) -> Json:
    response = {
        **base,
        "status": status,
        "output": list(output),
        "usage": _usage(question, output),
        "incomplete_details": None if reason is None else {"reason": reason},
        "completed_at": int(time.time()) if status == "completed" else None,
    }
    return {"type": f"response.{status}", "response": response}


def _usage(question: Question, output: Sequence[Json]) -> Json:
    """Input: a token per four characters; what a chained request continues counts as cached."""
    instructions = question.body.get("instructions")
    size = len(msgspec.json.encode(question.body.get("input"))) + len(instructions or "")
    input_tokens = question.known_tokens + max(1, size // 4)
    thought = sum(count_tokens(item) for item in output if item["type"] == "reasoning")
    spoken = sum(count_tokens(item) for item in output if item["type"] != "reasoning")
    return ev.usage(input_tokens, thought + spoken, cached_tokens=question.known_tokens, reasoning_tokens=thought)


def count_tokens(item: Mapping[str, Any]) -> int:
    """Tokens of an output item: its words, at least one."""
    parts = [*item.get("content", ()), *item.get("summary", ())]
    texts = [str(part.get("text") or part.get("refusal") or "") for part in parts]
    texts += [str(item.get(name, "")) for name in ("arguments", "input")]
    return max(1, sum(len(text.split()) for text in texts))


def _fit(output: Sequence[Json], limit: object) -> tuple[list[Json], bool]:
    """The output that fits the limit, and whether something had to go."""
    if not isinstance(limit, int) or isinstance(limit, bool):
        return list(output), False
    kept: list[Json] = []
    left = limit
    for item in output:
        size = count_tokens(item)
        if size <= left:
            kept.append(item)
            left -= size
            continue
        if item["type"] == "message" and left > 0:
            text = "".join(ev.pieces(item["content"][0]["text"])[:left])
            kept.append({**item, "status": "incomplete", "content": [{**item["content"][0], "text": text}]})
        return kept, True
    return kept, False


def _output(question: Question) -> list[Json]:
    """The finished items of the answer, in order."""
    key = question.response_id.removeprefix("resp_")
    user_text, outputs = last_exchange(question.visible)
    items: list[Json] = []
    reasoning = question.body.get("reasoning")
    if isinstance(reasoning, dict) and reasoning.get("effort") != "none":
        items.append(_reasoning(question, key, user_text))
    if outputs:
        answered = "; ".join(_told(item, question.visible) for item in outputs)
        items.append(ev.message(f"{answered}. {_prose(question, user_text)}", id=f"msg_{key}"))
        return items
    called = tools.calls(question.body, user_text, key)
    items.extend(called)
    if not tools.owed(called):
        items.append(ev.message(_text(question, user_text), id=f"msg_{key}"))
    return items


def last_exchange(visible: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    """The text of the last user message, and the tool outputs that came after it."""
    outputs: list[Mapping[str, Any]] = []
    for item in reversed(visible):
        kind = item_type(item)
        if kind == "message" and item.get("role") == "user":
            return text_of(item.get("content")), outputs[::-1]
        if kind.endswith("_output"):
            outputs.append(item)
    return "", outputs[::-1]


def _told(output: Mapping[str, Any], visible: Sequence[Mapping[str, Any]]) -> str:
    call_id = output.get("call_id", output.get("id"))
    names = (
        item.get("name") or item_type(item)
        for item in visible
        if item.get("call_id") == call_id and "output" not in item
    )
    given = output.get("output")
    text = text_of(given) if isinstance(given, str | list) else ""
    if not text and given is not None:
        text = msgspec.json.encode(given).decode()
    return f"The tool {next(names, 'it')} answered: {' '.join(text.split()[:ECHOED_WORDS])}"


def _reasoning(question: Question, key: str, user_text: str) -> Json:
    asked = question.body["reasoning"]
    wants_summary = isinstance(asked, dict) and asked.get("summary") not in (None, "none")
    include = question.body.get("include")
    sealed = isinstance(include, list) and "reasoning.encrypted_content" in include
    thought = " ".join(_rng(question, user_text).choices(WORDS, k=8))
    return ev.reasoning(
        f"**Thinking** {thought}" if wants_summary else (),
        encrypted_content=f"gAAAA{key}" if sealed else None,
        id=f"rs_{key}",
    )


def _rng(question: Question, user_text: str) -> random.Random:
    return random.Random(f"{question.settings.seed} {user_text}")


def _text(question: Question, user_text: str) -> str:
    wanted = question.body.get("text")
    shape = wanted.get("format") if isinstance(wanted, dict) else None
    kind = shape.get("type") if isinstance(shape, dict) else "text"
    if isinstance(shape, dict) and kind == "json_schema":
        return msgspec.json.encode(schema.value_for(shape["schema"], word=_word(user_text))).decode()
    if kind == "json_object":
        return msgspec.json.encode({"answer": _echo(user_text)}).decode()
    return f"You said: {_echo(user_text)}. {_prose(question, user_text)}"


def _word(user_text: str) -> str:
    """One word of the user's, for arguments."""
    found = re.findall(r"[A-Za-z]{3,}", user_text)
    return found[-1] if found else "sample"


def _echo(user_text: str) -> str:
    return " ".join(user_text.split()[:ECHOED_WORDS]) or "nothing"


def _prose(question: Question, user_text: str) -> str:
    count = int(_metadata_number(question.body, "sim_words", question.settings.words))
    if count < 1:
        return ""
    words = _rng(question, user_text).choices(WORDS, k=count)
    return f"{' '.join(words).capitalize()}."
