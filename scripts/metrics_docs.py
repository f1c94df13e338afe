"""Writes the table of metrics into docs/tracing.md. A test fails while it is out of date."""

from pathlib import Path

from warmline_server.observe import metric_table

TARGET = Path(__file__).parents[1] / "docs" / "tracing.md"
BEGIN, END = "<!-- metrics: made by scripts/metrics_docs.py -->", "<!-- end of metrics -->"


def table() -> str:
    """The table, one row per metric."""
    rows = ["| metric | kind, unit | what it says | attributes |", "| --- | --- | --- | --- |"]
    for metric in metric_table.ALL:
        kind = metric.kind.name.lower().replace("_", "-")
        attributes = ", ".join(f"`{name}`" for name in metric.attributes)
        rows.append(f"| `{metric.name}` | {kind}, `{metric.unit}` | {metric.says} | {attributes} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with the table as it should be. Raises: ValueError when a mark is missing."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{TARGET.name} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET.name}")
