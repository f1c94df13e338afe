"""Headers of a reply, one a line, or as the JSON object that some events carry."""

from fuzz.checks.events import check_headers

CHECK = check_headers


def seeds() -> list[bytes]:
    return [
        b"OpenAI-Model: m-1\nx-request-id: req_1\nx-models-etag: e\nx-reasoning-included: 1\nX-Codex-Turn-State: ts-1",
        b"x-codex-primary-used-percent: 42.5\nx-codex-primary-window-minutes: 300\n"
        b"x-codex-primary-reset-at: 1700000000\n"
        b"x-codex-secondary-used-percent: 1e2\nx-codex-credits-has-credits: true\nx-codex-credits-unlimited: 0\n"
        b"x-codex-credits-balance: 12\nx-codex-other-primary-used-percent: 3\nx-codex-other-limit-name: other",
        b'{"OpenAI-Model":["m-1"],"x-codex-turn-state":"ts-1","x-codex-primary-used-percent":5,"a":null,"b":{}}',
    ]
