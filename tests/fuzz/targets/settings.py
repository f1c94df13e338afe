"""A configuration file, and after a zero byte variables, one a line, without their prefix."""

from fuzz.checks.files import check_settings

CHECK = check_settings


def seeds() -> list[bytes]:
    return [
        b'listen = "127.0.0.1:0"\ndefault_upstream = "simulator"\n[limits]\nmax_sessions = 5\nslow_reader_s = 1.5\n'
        b'[telemetry]\ntraces = ["otlp"]\nmetrics = "none"\n',
        b'[upstreams.mine]\nbase_url = "https://example.com/v1"\nquery = { api-version = "1" }\n'
        b'credential = { source = "env", env = "KEY" }\nextra_headers = { X-A = "b" }\nproxy = "http://p:1"\n',
        b'[upstreams.mine]\nkind = "fixture"\nfixture_path = "a.sse"\n\0UPSTREAMS__MINE__IDLE_TIMEOUT_S=5\n'
        b'TELEMETRY__TRACES=otlp,console\nUPSTREAMS__OPENAI__QUERY={"a":"b"}\nTURN_METADATA__COMMAND=["a"]',
        b'a = [[[[1]]]]\nd = 1979-05-27T07:32:00Z\nlistn = "x:1"\n[upstreams.openai]\napi_key = "sk-1"\n',
        b'[turn_metadata]\nstatic_json = "{\\"a\\":1}"\n[auth]\nallow_unauthenticated = true\n\0LISTEN=0.0.0.0:99999',
    ]
