"""A refusal: two bytes make the status, one tells a handshake from a POST; headers, a blank line, the body."""

from fuzz.checks.events import check_refusals

CHECK = check_refusals


def seeds() -> list[bytes]:
    codes = {400: b"\x01\x2c", 401: b"\x01\x2d", 429: b"\x01\x49", 503: b"\x01\x93", 301: b"\x00\xc9"}
    return [
        codes[429] + b'\x00retry-after: 7\nx-request-id: req_1\n\n{"error":{"code":"rate_limit_exceeded"}}',
        codes[429] + b"\x00retry-after: Fri, 31 Dec 1999 23:59:59 GMT\n\n",
        codes[429] + b"\x00retry-after-ms: 1500\nx-codex-active-limit: codex_other\n"
        b'x-codex-other-primary-used-percent: 100\n\n{"error":{"type":"usage_limit_reached","plan_type":"pro"}}',
        codes[503] + b"\x01cf-ray: 7\n\n<html><title>Bad gateway</title></html>",
        codes[401] + b"\x01x-error-json: eyJlcnJvciI6eyJjb2RlIjoidG9rZW5fZXhwaXJlZCJ9fQ==\n\n",
        codes[400] + b'\x00\n\n{"error":{"code":"invalid_value","param":"input[0].image_url","message":"no"}}',
        codes[400] + b'\x00\n\n{"status":400,"error":"just words","headers":{"x-request-id":"r"}}',
        codes[301] + b"\x01location: /\n\n",
    ]
