"""The manifests are valid, and say of the server what the server says of itself."""

import argparse
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import msgspec
import pytest
import yaml
from opentelemetry.sdk import environment_variables

from deploy.rendered import BASE, DEV, FOREIGN_SECRETS, KUSTOMIZE, PROD, SECURE, Rendered, render
from warmline_cli import serve
from warmline_server import app
from warmline_server.callers.caller import NamePattern
from warmline_server.observe.metric_table import CALLS_ACTIVE
from warmline_server.settings import Settings, load
from warmline_simulator import cli as simulator_cli

# The oldest and the newest that the manifests are meant for.
KUBERNETES = ("1.33", "1.37")
# What the end may take beside its own limits: scheduling, a last write.
END_MARGIN_S = 5.0


@pytest.fixture(params=[BASE, DEV, PROD, SECURE])
def place(request: pytest.FixtureRequest) -> Rendered:
    """Each place that the server is deployed to, and the base by itself."""
    return render(request.param)


@pytest.fixture
def settings(place: Rendered, tmp_path: Path) -> Settings:
    """What the server reads there; that it can be read is the first thing that these tests prove."""
    return place.settings(tmp_path)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_fits_the_schemas(place: Rendered, version: str) -> None:
    for manifest in place.manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_does_not_fit() -> None:
    deployment = render(BASE).one("Deployment")
    spoiled = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(spoiled, KUBERNETES[-1], strict=True)


def test_the_server_takes_its_arguments(place: Rendered) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_arguments(parser)
    config = parser.parse_args(place.container["args"]).config
    assert str(config) in place.mounted()


def test_the_simulator_is_where_the_server_looks_for_it(tmp_path: Path) -> None:
    place = render(DEV)
    (container,) = place.one("Deployment", "warmline-simulator")["spec"]["template"]["spec"]["containers"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    simulator_cli.add_arguments(parser)
    assert container["command"] == ["warmline", "simulate"]
    args = parser.parse_args(container["args"])
    assert container["ports"][0]["containerPort"] == args.port
    service = place.one("Service", "warmline-simulator")
    (port,) = service["spec"]["ports"]
    url = place.settings(tmp_path).upstreams["simulator"].base_url
    assert url == f"http://{service['metadata']['name']}:{port['port']}/v1"


def test_credentials_are_files_that_are_mounted(place: Rendered, settings: Settings) -> None:
    used = settings.upstreams[settings.default_upstream].credential
    assert used.source == "file"
    assert used.file in place.mounted()


def test_variables_are_known(place: Rendered) -> None:
    standard = {name for name in dir(environment_variables) if name.startswith("OTEL_")}
    ours = {"POD_NAME", "POD_NAMESPACE"}
    for name in (each["name"] for each in place.container["env"]):
        # What WARMLINE_* may be called, the reading of the settings has proved.
        assert name in standard | ours or name.startswith("WARMLINE_"), name


def test_probes_ask_for_what_the_server_answers(place: Rendered, settings: Settings) -> None:
    asked = {name: place.container[f"{name}Probe"]["grpc"] for name in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in asked.values()} == {port_of(settings.health_listen)}
    assert {"name": "health", "containerPort": port_of(settings.health_listen)} in place.container["ports"]
    assert asked["readiness"]["service"] == app.READINESS
    assert asked["startup"]["service"] == asked["liveness"]["service"] == app.LIVENESS


def test_ports_are_the_servers(place: Rendered, settings: Settings) -> None:
    port = port_of(settings.listen)
    assert {"name": "grpc", "containerPort": port} in place.container["ports"]
    for name in ("warmline", "warmline-headless"):
        (served,) = place.one("Service", name)["spec"]["ports"]
        assert (served["targetPort"], served["port"]) == ("grpc", port)
    ingress = place.one("NetworkPolicy")["spec"]["ingress"][0]
    assert [each["port"] for each in ingress["ports"]] == [port]


def test_everything_selects_the_servers_pods(place: Rendered) -> None:
    deployment = place.one("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        place.one("Service")["spec"]["selector"],
        place.one("Service", "warmline-headless")["spec"]["selector"],
        place.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        place.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        place.pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector == {name: labels[name] for name in selector}
        assert selector["app.kubernetes.io/component"] == "server", "the simulator must not be selected"


def test_the_grace_covers_the_longest_end(place: Rendered, settings: Settings) -> None:
    pre_stop_s = place.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = settings.drain
    end_s = app.CUT_S + 2 * app.STOP_S + settings.telemetry.shutdown_s
    needed_s = pre_stop_s + drain.propagation_s + drain.grace_s + end_s + END_MARGIN_S
    grace_s = place.pod["terminationGracePeriodSeconds"]
    assert needed_s <= grace_s <= needed_s + 10.0
    assert drain.grace_s >= settings.limits.max_turn_duration_s, "a restart would cut a call"


def test_the_pod_is_confined(place: Rendered) -> None:
    """As the pod security standard `restricted` asks, and more."""
    for deployment in place.all("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_the_network_lets_the_upstream_through(place: Rendered, settings: Settings) -> None:
    upstream = settings.upstreams[settings.default_upstream]
    port = 443 if upstream.base_url.startswith("https:") else int(upstream.base_url.rpartition(":")[2].split("/")[0])
    allowed = {each["port"] for rule in place.one("NetworkPolicy")["spec"]["egress"] for each in rule["ports"]}
    assert {53, port} <= allowed


def test_the_network_lets_the_telemetry_through(tmp_path: Path) -> None:
    place = render(PROD)
    settings = place.settings(tmp_path)
    assert settings.telemetry.traces == ("otlp",)
    host, _, port = place.variables["OTEL_EXPORTER_OTLP_ENDPOINT"].removeprefix("http://").rpartition(":")
    rules = place.one("NetworkPolicy")["spec"]["egress"]
    collector = next(rule for rule in rules if [each["port"] for each in rule["ports"]] == [int(port)])
    (to,) = collector["to"]
    service, namespace = host.split(".")
    assert to["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace
    assert to["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == service


def test_metrics_are_scraped_where_they_are_served(tmp_path: Path) -> None:
    place = render(PROD)
    port = port_of(place.settings(tmp_path).telemetry.prometheus_listen)
    assert {"name": "metrics", "containerPort": port} in place.container["ports"]
    assert place.one("Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    rules = place.one("NetworkPolicy")["spec"]["ingress"]
    assert [each["port"] for rule in rules[1:] for each in rule["ports"]] == [port]


def test_the_autoscaler_counts_what_the_server_counts(tmp_path: Path) -> None:
    place = render(PROD)
    limits = place.settings(tmp_path).limits
    scaler = place.one("HorizontalPodAutoscaler")["spec"]
    metrics: dict[str, Any] = {metric["type"]: metric for metric in scaler["metrics"]}
    calls = metrics["Pods"]["pods"]
    # As Prometheus spells it; a unit in braces is left out of the name.
    assert calls["metric"]["name"] == CALLS_ACTIVE.name.replace(".", "_")
    assert 0 < int(calls["target"]["averageValue"]) < limits.max_concurrent_turns
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= limits.max_turn_duration_s
    assert "replicas" not in place.one("Deployment")["spec"], "an apply would undo the autoscaler"
    assert scaler["minReplicas"] > place.one("PodDisruptionBudget")["spec"]["maxUnavailable"]


def test_the_secure_place_knows_its_callers() -> None:
    """Read without kustomize, so that it is seen on every machine."""
    folder = KUSTOMIZE / "overlays/secure"
    settings = load(folder / "warmline.toml", {})
    auth = settings.auth
    pod = yaml.safe_load((folder / "server.yaml").read_text())["spec"]["template"]["spec"]
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    mounted = {
        f"{mount['mountPath']}/{name}"
        for mount in container["volumeMounts"]
        for name in FOREIGN_SECRETS[secrets[mount["name"]]]
    }
    assert auth.is_required
    assert not auth.allow_unauthenticated
    assert {auth.tokens_file, auth.tls.cert_file, auth.tls.key_file, auth.tls.client_ca_file} == mounted
    assert auth.known_tenants_only
    assert NamePattern(auth.tls.tenant_pattern).tenant(["spiffe://cluster.local/ns/agents/sa/one"])[0] in auth.tenants
    base = load(KUSTOMIZE / "base/warmline.toml", {})
    assert msgspec.structs.replace(settings, auth=base.auth) == base, "all else is as in the base"


def test_production_is_closed(tmp_path: Path) -> None:
    place = render(PROD)
    settings = place.settings(tmp_path)
    assert settings.reflection is False
    assert settings.admin_listen == ""
    assert settings.telemetry.capture_content is False
    sources = [source for rule in place.one("NetworkPolicy")["spec"]["ingress"] for source in rule["from"]]
    assert len(sources) == 2
    for source in sources:
        assert source["podSelector"]["matchLabels"]
        assert source["namespaceSelector"]["matchLabels"]
