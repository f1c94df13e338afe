"""TLS of the gRPC server, with whatever certificate its files hold when a handshake begins."""

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from warmline_server.callers.server_certificate import Material, ServerCertificate


def server_credentials(certificate: "ServerCertificate") -> grpc.ServerCredentials:
    """Credentials that ask for the certificate before each handshake.

    Either every caller shows a certificate, or none is asked for one: grpcio has nothing in between.
    """

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        material = certificate.renewed()
        return None if material is None else _configuration(material)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificate.material),
        renewed,  # type: ignore[arg-type]  # None, where nothing is new, is missing in its types
        require_client_authentication=certificate.material.authorities is not None,
    )


def _configuration(material: "Material") -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.authorities)
