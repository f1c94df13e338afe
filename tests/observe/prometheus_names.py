"""The names under which a Prometheus server knows our metrics and their attributes."""

import re

from warmline_server.observe import metric_table
from warmline_server.observe.metric_table import Kind


def prometheus_names() -> set[str]:
    """Of metrics; a histogram has three series."""
    found = set()
    for metric in metric_table.ALL:
        name = re.sub(r"[^a-zA-Z0-9_]", "_", metric.name)
        unit = {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{name}{unit}_{series}" for series in ("bucket", "count", "sum")}
        elif metric.kind is Kind.COUNTER:
            found.add(f"{name}{unit}_total")
        else:
            found.add(name if name.endswith(unit) else f"{name}{unit}")
    return found


def prometheus_labels() -> set[str]:
    """Of attributes."""
    return {re.sub(r"[^a-zA-Z0-9_]", "_", label) for metric in metric_table.ALL for label in metric.attributes}
