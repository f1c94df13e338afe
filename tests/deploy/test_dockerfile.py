"""The image is what the manifests and the build of this repository take it for."""

import json
import re

import pytest

from deploy.rendered import BASE, ROOT, render
from warmline_cli.main import main

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def words(instruction: str) -> list[str]:
    """What stands behind each such instruction, lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{instruction} ")]


def test_it_starts_the_server_without_a_shell() -> None:
    (entry,) = words("ENTRYPOINT")
    program, command = json.loads(entry)
    assert (program, command) == ("warmline", "serve")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert words("CMD") == []


def test_its_user_is_the_pods() -> None:
    (user,) = words("USER")
    context = render(BASE).pod["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_its_port_is_the_pods() -> None:
    assert words("EXPOSE") == [str(render(BASE).container["ports"][0]["containerPort"])]


def test_it_is_built_from_the_lock_by_the_same_tool_as_everything_else() -> None:
    found = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert found is not None
    assert f"UV_VERSION={found[1]}" in words("ARG")
    syncs = [line for line in words("RUN") if "uv sync" in line]
    assert len(syncs) == 2
    for line in syncs:
        assert {"--frozen", "--no-dev"} <= set(line.split())
    assert "--no-editable" in syncs[-1]


def test_both_stages_have_the_same_base_unless_told_otherwise() -> None:
    assert "BUILD_BASE=${BASE}" in words("ARG")
    assert [line.split()[0] for line in words("FROM")] == ["${BUILD_BASE}", "${BASE}"]


def test_nothing_but_what_is_copied_reaches_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in words("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert copied <= allowed
