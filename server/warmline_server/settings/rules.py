"""What must hold between settings that are each fine by themselves."""

import re
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from warmline_server.settings.annotations import LATER, Table, extra
from warmline_server.settings.convert import nearest, table_type
from warmline_server.settings.model import Auth, Jwt, Settings, TurnMetadata
from warmline_server.settings.problems import Problem
from warmline_server.settings.upstream import Credential, UpstreamProfile, is_loopback

# Source: RFC 9110 §5.6.2 (token) and §5.5 (values; obsolete bytes beyond ASCII left out).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})
_UPSTREAM_SCHEMES = ("http", "https", "ws", "wss")
_NEEDED = {
    "none": (),
    "env": ("env",),
    "file": ("file",),
    "command": ("command",),
    "oauth": ("file", "token_url", "client_id"),
}


def broken_rules(settings: Settings) -> list[Problem]:
    """Every rule that the settings break; empty when all hold."""
    problems = [*_default_upstream(settings), *_listen(settings), *_turn_metadata(settings.turn_metadata)]
    problems += [*_callers(settings), *_tenants(settings)]
    for name, profile in settings.upstreams.items():
        problems += _upstream(profile, f"upstreams.{name}.")
    return [*problems, *_not_yet(settings, "")]


def listens_beyond_loopback(listen: str) -> bool:
    """Whether others than this machine can reach the address, as far as can be told."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return False
    return not is_loopback(listen.rpartition(":")[0].strip("[]"))


def _default_upstream(settings: Settings) -> Iterator[Problem]:
    if settings.default_upstream not in settings.upstreams:
        likely = nearest(settings.default_upstream, settings.upstreams)
        hint = f"did you mean {likely!r}?" if likely else ""
        known = ", ".join(sorted(settings.upstreams))
        yield Problem("default_upstream", repr(settings.default_upstream), f"one of {known}", hint)


def _listen(settings: Settings) -> Iterator[Problem]:
    host, _, port = settings.listen.rpartition(":")
    if not settings.listen.startswith("unix") and not (
        host and port.isdecimal() and len(port) <= 5 and int(port) < 2**16
    ):
        yield Problem("listen", repr(settings.listen), "HOST:PORT or unix:PATH")
        return
    if not listens_beyond_loopback(settings.listen):
        return
    auth = settings.auth
    if not (auth.is_required or auth.allow_unauthenticated):
        yield Problem(
            "listen",
            f"{settings.listen!r}, where anybody may call",
            "an address on loopback, or callers that authenticate",
            "auth.allow_unauthenticated = true accepts that",
        )
    if auth.takes_tokens and not (auth.tls.cert_file or auth.allow_plaintext_tokens):
        yield Problem(
            "listen",
            f"{settings.listen!r}, where tokens come in plain text",
            "auth.tls.cert_file, or an address on loopback",
            "auth.allow_plaintext_tokens = true accepts that",
        )


def _callers(settings: Settings) -> Iterator[Problem]:
    auth = settings.auth
    if auth.is_required and auth.allow_unauthenticated:
        yield Problem(
            "auth.allow_unauthenticated", "true, beside callers that authenticate", "one of them", "all must then"
        )
    if auth.known_tenants_only and not auth.tenants:
        yield Problem("auth.known_tenants_only", "true, and no tenant", "tables auth.tenants.NAME")
    if auth.tokens_file and not auth.tokens_file.endswith(".toml"):
        # Not shown: it may be a token.
        yield Problem("auth.tokens_file", "a text that is none", "the path of a .toml file")
    yield from _jwt(auth.jwt)
    yield from _tls(auth)


def _jwt(jwt: Jwt) -> Iterator[Problem]:
    if not jwt.is_on:
        return
    if jwt.jwks_url and jwt.jwks_file:
        yield Problem("auth.jwt.jwks_file", "a file, beside auth.jwt.jwks_url", "one of them")
    if jwt.jwks_url:
        yield from _url(jwt.jwks_url, "auth.jwt.jwks_url", allow_insecure=False, schemes=("http", "https"))
    # A token without them would be one that was made for somebody else.
    for name in ("issuer", "audience", "algorithms", "tenant_claim"):
        if not getattr(jwt, name):
            yield Problem(f"auth.jwt.{name}", "nothing", "a value, where tokens are accepted")
    yield from _pattern(jwt.tenant_pattern, "auth.jwt.tenant_pattern")


def _tls(auth: Auth) -> Iterator[Problem]:
    tls = auth.tls
    for name, other in (("cert_file", "key_file"), ("key_file", "cert_file"), ("cert_file", "client_ca_file")):
        if getattr(tls, other) and not getattr(tls, name):
            yield Problem(f"auth.tls.{name}", "nothing", f"a file, beside auth.tls.{other}")
    if tls.client_ca_file and tls.tenant_from == "none" and not auth.takes_tokens:
        yield Problem("auth.tls.tenant_from", "none, and no tokens", "what names the tenant")
    yield from _pattern(tls.tenant_pattern, "auth.tls.tenant_pattern")


def _pattern(pattern: str, key: str) -> Iterator[Problem]:
    try:
        # What a later version would read otherwise is refused today.
        with warnings.catch_warnings(action="error"):
            groups = re.compile(pattern).groups
    except (re.error, Warning, OverflowError, RecursionError):
        yield Problem(key, "a text that is none", "a regular expression")
        return
    if groups > 1:
        yield Problem(key, f"{groups} groups", "one at most", "(?:…) groups without counting")


def _tenants(settings: Settings) -> Iterator[Problem]:
    auth = settings.auth
    lists = {"auth.upstreams": auth.upstreams}
    lists |= {f"auth.tenants.{name}.upstreams": policy.upstreams for name, policy in auth.tenants.items()}
    for key, names in lists.items():
        for name in names:
            if name not in settings.upstreams:
                known = ", ".join(sorted(settings.upstreams))
                likely = nearest(name, settings.upstreams)
                yield Problem(key, repr(name), f"of {known}", f"did you mean {likely!r}?" if likely else "")


def _turn_metadata(metadata: TurnMetadata) -> Iterator[Problem]:
    if not metadata.static_json:
        return
    try:
        msgspec.json.decode(metadata.static_json, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError):
        yield Problem("turn_metadata.static_json", "a text that is none", "a JSON object")


def _upstream(profile: UpstreamProfile, path: str) -> Iterator[Problem]:
    if profile.kind == "fixture":
        if not profile.fixture_path:
            yield Problem(f"{path}fixture_path", "nothing", "the file that the fixture plays")
        return
    yield from _url(profile.base_url, f"{path}base_url", allow_insecure=profile.allow_insecure)
    yield from _proxy(profile.proxy, f"{path}proxy")
    yield from _headers(profile, path)
    yield from _credential(profile.credential, f"{path}credential.")


def _url(
    url: str, key: str, *, allow_insecure: bool, schemes: tuple[str, ...] = _UPSTREAM_SCHEMES
) -> Iterator[Problem]:
    """A URL is not shown in whole: what does not belong there may be a secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield Problem(key, "a text that is no URL", "a URL")
        return
    if parts.scheme not in schemes or not host:
        yield Problem(key, "nothing" if not url else "a text that is no such URL", "an https URL")
    elif parts.username is not None or parts.query or parts.fragment:
        yield Problem(
            key, "a URL with a user, query or fragment", "one without", "parameters belong to `query`, keys to neither"
        )
    elif parts.scheme in ("http", "ws") and not allow_insecure and not is_loopback(host):
        yield Problem(key, f"{parts.scheme} to {host}", "https beyond loopback", "allow_insecure = true accepts that")


def _proxy(proxy: str, key: str) -> Iterator[Problem]:
    """A proxy is not shown at all: its URL is where its password stands."""
    if proxy in ("", "none"):
        return
    try:
        parts = urlsplit(proxy)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_good = False
    if not is_good:
        yield Problem(key, "a text that is no such URL", "http://HOST:PORT, https://HOST:PORT or none")


def _headers(profile: UpstreamProfile, path: str) -> Iterator[Problem]:
    for name, value in profile.extra_headers.items():
        key = f"{path}extra_headers.{name}"
        if name.lower() in _SECRET_HEADERS:
            yield Problem(
                key, "a header that carries a secret", "it to come from `credential`", "set credential.header"
            )
        elif not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            yield Problem(key, "a header that cannot be sent", "a name and a value of visible ASCII")
    for name in ("organization", "project", "version", "originator", "user_agent"):
        value = getattr(profile, name)
        if value and not _HEADER_VALUE.fullmatch(value):
            yield Problem(f"{path}{name}", "a text that cannot be sent as a header", "visible ASCII")


def _credential(credential: Credential, path: str) -> Iterator[Problem]:
    for name in _NEEDED[credential.source]:
        if not getattr(credential, name):
            yield Problem(f"{path}{name}", "nothing", f"a value, for the source {credential.source!r}")
    if credential.source == "oauth" and credential.token_url:
        yield from _url(credential.token_url, f"{path}token_url", allow_insecure=False)
    if not _HEADER_NAME.fullmatch(credential.header):
        yield Problem(f"{path}header", "a text that is none", "the name of a header")
    if credential.scheme and not _HEADER_VALUE.fullmatch(credential.scheme):
        yield Problem(f"{path}scheme", "a text that cannot be sent", "visible ASCII")


def _not_yet(table: Table, path: str) -> Iterator[Problem]:
    """Settings that this version knows and does not carry out."""
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        if table_type(field.type) is not None:
            yield from _not_yet(value, f"{path}{field.name}.")
        elif isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, Table):
                    yield from _not_yet(inner, f"{path}{field.name}.{name}.")
        elif extra(field.type, LATER) and value != field.default:
            yield Problem(f"{path}{field.name}", "a value", "none: this version does not carry it out")
