"""Who a caller is by its certificate, which gRPC has verified against the authorities during the handshake."""

from collections.abc import Mapping, Sequence

from warmline_server.callers.caller import Caller, NamePattern, Refused
from warmline_server.settings import Tls

# Where gRPC puts what it has read of a verified certificate. Measured: grpcio 1.85.1.
_PLACES = {"spiffe": "peer_spiffe_id", "dns": "peer_dns", "common_name": "x509_common_name"}

AuthContext = Mapping[str, Sequence[bytes]]


class Certificates:
    """Reads tenants from certificates. Pure."""

    def __init__(self, settings: Tls) -> None:
        self._place = _PLACES.get(settings.tenant_from, "")
        self._pattern = NamePattern(settings.tenant_pattern)

    def find(self, auth_context: AuthContext) -> Caller:
        """Whose certificate this is. Raises: Refused, also for a caller that has none."""
        if "x509_pem_cert" not in auth_context:
            raise Refused("shows neither token nor certificate")
        names = [name.decode(errors="replace") for name in auth_context.get(self._place, ())]
        tenant, name = self._pattern.tenant(names)
        return Caller(tenant, name)
