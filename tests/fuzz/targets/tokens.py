"""A credential: the text, the token file, the token endpoint's answer."""

from fuzz.checks.files import check_tokens

CHECK = check_tokens


def seeds() -> list[bytes]:
    return [
        b"sk-test\n",
        b"eyJhbGciOiJub25lIn0.eyJleHAiOjE4MDAwMDAwMDB9.sig",
        b'{"access_token":"a","refresh_token":"r","expires_at":1800000000,"account_id":"acc"}',
        b'{"tokens":{"access_token":"eyJhbGciOiJub25lIn0.eyJleHAiOjE4MDAwMDAwMDB9.sig","refresh_token":null},"x":[1]}',
        b'{"access_token":"a","expires_in":3600,"token_type":"Bearer"}',
    ]
