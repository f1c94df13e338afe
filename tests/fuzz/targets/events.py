"""Events of an upstream, one a line: the first byte says whether they are shown verbatim."""

from fuzz.checks.events import check_events

CHECK = check_events

ITEM = b'{"type":"function_call","id":"fc_1","call_id":"c1","name":"look","arguments":"{\\"a\\":1}"}'
EVENTS = [
    b'{"type":"response.created","response":{"id":"resp_1","model":"m","headers":{"openai-model":"m-2"}}}',
    b'{"type":"response.output_item.added","output_index":0,"item":' + ITEM + b"}",
    b'{"type":"response.output_item.done","output_index":0,"item":' + ITEM + b"}",
    b'{"type":"response.output_item.done","item":{"type":"message","content":"cut \\ud83d"}}',
    b'{"type":"response.output_text.delta","delta":"hi","item_id":"i","content_index":0,"output_index":0}',
    b'{"type":"response.reasoning_text.delta","delta":"hm","item_id":"i","content_index":1}',
    b'{"type":"response.reasoning_summary_text.delta","delta":"hm","item_id":"i","summary_index":1}',
    b'{"type":"response.reasoning_summary_part.added","item_id":"i","summary_index":1}',
    b'{"type":"response.function_call_arguments.delta","delta":"{","item_id":"i","call_id":"c1"}',
    b'{"type":"response.metadata","headers":{"x-codex-turn-state":["ts-1"],"x-models-etag":"e","OpenAI-Model":"m"}}',
    b'{"type":"codex.rate_limits","plan_type":"pro","metered_limit_name":"codex_other","rate_limits":{"primary":'
    b'{"used_percent":42.5,"window_minutes":300,"reset_at":1700000000}},"credits":{"has_credits":true,'
    b'"unlimited":false,"balance":12}}',
    b'{"type":"response.completed","response":{"id":"resp_1","end_turn":true,"usage":{"input_tokens":1,'
    b'"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":1},'
    b'"total_tokens":3}}}',
    b'{"type":"response.incomplete","response":{"id":"resp_1","incomplete_details":{"reason":"max_output_tokens"}}}',
    b'{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"try again in 1.5s"}}}',
    b'{"type":"error","status":429,"error":{"type":"usage_limit_reached","message":"no","plan_type":"pro"},'
    b'"headers":{"x-codex-primary-used-percent":"100","retry-after":"7"}}',
    b'{"type":"error","code":"slow_down","message":"later"}',
    b'{"type":"response.in_progress","response":{"tools":[{"parameters":{"a":[[[[]]]]}}]}}',
    b'{"type":"response.output_item.done","item":{"type":"x","a":' + b"[" * 200 + b"]" * 200 + b"}}",
]


def seeds() -> list[bytes]:
    return [
        *(flag + event for flag in (b"\x00", b"\x01") for event in EVENTS),
        b"\x00" + b"\n".join(EVENTS[:-6]),
        b"\x01" + b"\n".join(EVENTS[:-6]),
    ]
