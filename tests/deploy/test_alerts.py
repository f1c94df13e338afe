"""The alert rules ask for what the server tells, and the operator's page explains each of them."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from deploy.rendered import ROOT
from observe.prometheus_names import prometheus_labels, prometheus_names
from warmline_server.core.errors import Reason
from warmline_server.core.records import CallOutcome

RULES_FILE = ROOT / "deploy/prometheus/alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs/operations.md").read_text()
# What the scrape itself adds, and Prometheus' own metric of it.
SCRAPED = {"instance", "job", "le"}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@rules
def test_the_metrics_and_labels_of_a_rule_exist(rule: dict[str, Any]) -> None:
    expression, labels = rule["expr"], prometheus_labels()
    names = set(re.findall(r"\b(?:warmline|gen_ai|rpc)_[a-z0-9_]+", expression)) - labels
    matched = set(re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|=)", expression))
    grouped = {
        label.strip() for group in re.findall(r"(?:by|on) ?\(([^)]*)\)", expression) for label in group.split(",")
    }

    assert names <= prometheus_names()
    assert names or "up{" in expression
    assert matched | grouped <= labels | SCRAPED | {"error_type"}


@rules
def test_the_values_that_a_rule_asks_for_exist(rule: dict[str, Any]) -> None:
    asked = dict(re.findall(r'(warmline_[a-z_]+)=~?"([^"]+)"', rule["expr"]))
    known = {
        "warmline_reason": {reason.value for reason in Reason},
        "warmline_outcome": {outcome.name.lower() for outcome in CallOutcome},
        "warmline_state": {"websocket", "latched"},
    }
    for label, values in asked.items():
        assert set(values.split("|")) <= known[label]


def test_the_page_explains_every_alert_and_no_other() -> None:
    (table,) = re.findall(r"\| alert \| it means \| do \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", PAGE)
    told = [row.split("|")[1].strip() for row in table.splitlines()]

    assert told == [rule["alert"] for rule in RULES]


@rules
def test_a_rule_says_how_bad_it_is_and_what_is_wrong_where(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert "{{ $labels." in rule["annotations"]["summary"]


def test_prometheus_reads_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (apt-get install prometheus)")
    done = subprocess.run([promtool, "check", "rules", RULES_FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout
