"""What `warmline turn` reads: an array of items, JSON Lines, a request body, an array of tools."""

from fuzz.checks.files import check_conversation

CHECK = check_conversation


def seeds() -> list[bytes]:
    return [
        b'[{"type":"message","role":"user","content":"hi"}]',
        b'{"role":"user","content":"hi"}\n{"type":"function_call","call_id":"c"}\n',
        b'{"type":"response.create","model":"m","input":"hi","stream":true,"previous_response_id":null}',
        b'\xef\xbb\xbf{"model":"m","input":[{"role":"user","content":"\\ud83d"}]}',
    ]
