"""The manifests as a cluster would get them, and the settings that the server would read there."""

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from warmline_server.settings import Settings
from warmline_server.settings.load import load

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy/kustomize"
BASE, DEV, PROD, SECURE = "base", "dev", "prod", "secure"

# Secrets that somebody else makes, with the files that docs/operations.md and cert-manager put into them.
FOREIGN_SECRETS: Mapping[str, Mapping[str, None]] = {
    "warmline-credentials": {"openai-api-key": None},
    "warmline-tokens": {"tokens.toml": None},
    "warmline-tls": {"tls.crt": None, "tls.key": None, "ca.crt": None},
}

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One place's manifests."""

    name: str
    manifests: tuple[Manifest, ...]

    def all(self, kind: str) -> list[Manifest]:
        """Those of a kind, in order."""
        return [each for each in self.manifests if each["kind"] == kind]

    def one(self, kind: str, name: str = "warmline") -> Manifest:
        """The one of that kind and name, or of that name with the hash of its content behind it."""
        found = [each for each in self.all(kind) if _is_named(each["metadata"]["name"], name)]
        assert len(found) == 1, f"{self.name}: {len(found)} of {kind} {name}"
        return found[0]

    @property
    def pod(self) -> Mapping[str, Any]:
        """The server's pod."""
        return self.one("Deployment")["spec"]["template"]["spec"]  # type: ignore[no-any-return]

    @property
    def container(self) -> Mapping[str, Any]:
        """The server's container."""
        (container,) = self.pod["containers"]
        return container  # type: ignore[no-any-return]

    @property
    def variables(self) -> dict[str, str]:
        """The container's variables that have a plain value."""
        return {each["name"]: each["value"] for each in self.container["env"] if "value" in each}

    def mounted(self) -> dict[str, str | None]:
        """Path in the container of each file of a config map or secret; its text, None for a secret from elsewhere."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        files: dict[str, str | None] = {}
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            for name, text in self._files(volume).items():
                files[f"{mount['mountPath']}/{name}"] = text
        return files

    def _files(self, volume: Mapping[str, Any]) -> Mapping[str, str | None]:
        if "configMap" in volume:
            return self.one("ConfigMap", volume["configMap"]["name"])["data"]  # type: ignore[no-any-return]
        secrets = [each for each in self.all("Secret") if each["metadata"]["name"] == volume["secret"]["secretName"]]
        return secrets[0]["data"] if secrets else FOREIGN_SECRETS[volume["secret"]["secretName"]]

    def settings(self, folder: Path) -> Settings:
        """What the server reads there: its file, under its variables. Raises: SettingsError."""
        path = folder / "warmline.toml"
        text = self.mounted()["/etc/warmline/warmline.toml"]
        assert text is not None
        path.write_text(text)
        return load(path, self.variables)


def _is_named(found: str, name: str) -> bool:
    head, _, tail = found.rpartition("-")
    return found == name or (head == name and len(tail) == 10)


@functools.cache
def render(place: str) -> Rendered:
    """The base as it stands, or an overlay through kustomize. Skips the test where there is none."""
    if place == BASE:
        return Rendered(place, (*_base_manifests(),))
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine: overlays are not rendered")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUSTOMIZE / "overlays" / place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Rendered(place, tuple(yaml.safe_load_all(done.stdout)))


def _base_manifests() -> Iterator[Manifest]:
    """Its resources, and the config map that its generator makes, under the name without a hash."""
    folder = KUSTOMIZE / "base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for resource in kustomization["resources"]:
        yield from yaml.safe_load_all((folder / resource).read_text())
    for generator in kustomization["configMapGenerator"]:
        data = {name: (folder / name).read_text() for name in generator["files"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
