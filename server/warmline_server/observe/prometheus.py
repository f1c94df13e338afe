"""The metrics for a scraper: `GET /metrics`, served by a thread of its own.

Imported only where it is asked for: the exporter is the optional extra `prometheus`.
"""

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CollectorRegistry, start_http_server


class PrometheusEndpoint:
    """Serves from now on. `address` has the port of a `:0` filled in.

    Raises: OSError when it cannot listen there; ValueError when `listen` is no `HOST:PORT`.
    """

    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        registry = CollectorRegistry()
        self.reader: MetricReader = PrometheusMetricReader(registry=registry, scope_info_enabled=False)
        self._server, _ = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Serves no more. Blocks until a scrape under way is answered."""
        self._server.shutdown()
        self._server.server_close()
