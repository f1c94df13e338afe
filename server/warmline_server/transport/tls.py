"""The one TLS context of an upstream, for sockets and HTTP alike."""

import ssl


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Verifies against the system's roots, and those of `ca_bundle` (a file's path; blank: none besides).

    Raises: OSError when the file cannot be read.
    """
    context = ssl.create_default_context()
    if ca_bundle:
        context.load_verify_locations(cafile=ca_bundle)
    return context
