"""The operator's page names what there is, and its figures are the server's."""

import re
from pathlib import Path

import pytest
import yaml

from deploy.rendered import ROOT
from warmline_server import app
from warmline_server.core.errors import Reason
from warmline_server.settings.load import all_keys

PAGE = (ROOT / "docs/operations.md").read_text()
KEYS = set(all_keys())


def in_quotes() -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.S))


def test_the_settings_that_it_names_exist() -> None:
    tables = {key.partition(".")[0] for key in KEYS if "." in key}
    named = [name for name in in_quotes() if re.fullmatch(r"[a-z]+\.[a-z_]+(\.[a-z_]+)?", name)]
    settings = [name for name in named if name.partition(".")[0] in tables - {"upstreams"}]
    assert len(settings) > 10
    for name in settings:
        assert name in KEYS


def test_the_files_that_it_names_exist() -> None:
    found = re.findall(r"\b(?:deploy|scripts|docs)/[\w./-]*\w", PAGE)
    assert len(found) > 5
    for name in found:
        assert (ROOT / name).exists(), name


def test_the_reasons_that_it_names_exist() -> None:
    (table,) = re.findall(r"\| reason \| look at \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE)
    cells = [row.split("|")[1] for row in table.splitlines()]
    reasons = [name for cell in cells for name in re.findall(r"[A-Z]{4,}(?:_[A-Z]+)+", cell)]
    assert len(reasons) >= len(cells)
    for name in reasons:
        assert name in Reason.__members__


def test_the_time_before_sigkill_covers_the_end() -> None:
    found = re.search(r"`telemetry\.shutdown_s` \+ (\d+) s before\s+SIGKILL", PAGE)
    assert found is not None
    assert float(found[1]) >= app.CUT_S + 2 * app.STOP_S


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S))
def test_its_yaml_can_be_read(block: str) -> None:
    (rule,) = yaml.safe_load(block)["rules"]
    scaler = yaml.safe_load(Path(ROOT / "deploy/kustomize/overlays/prod/autoscaler.yaml").read_text())
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
