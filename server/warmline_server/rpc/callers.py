"""Who calls: the tenant that sessions belong to."""

from typing import Any

import grpc


def tenant_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """The caller's tenant; blank on a server without authentication, where all callers are one."""
    return ""
