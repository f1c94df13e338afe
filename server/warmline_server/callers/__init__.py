"""Callers: who calls, by a token or a certificate. May import `core`, `clock`, `settings` and `watched_file`.

What decides is synchronous and pure (`caller`, `bearer`, `issuer_keys`, `jwt_tokens.verify`, `certificates`); what
waits or reads is thin (`authenticator`, `key_source`, `reloaded`, `server_certificate`). No token, and no part of
one, is ever in a repr, an error or a log.

Cryptography takes 0.1 s to import, so a server whose callers need not authenticate does without `authenticator` and
`server_certificate`.
"""

from warmline_server.callers.caller import ANYBODY, Caller, Refused, unauthenticated

__all__ = ["ANYBODY", "Caller", "Refused", "unauthenticated"]
