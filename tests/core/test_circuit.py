"""The circuit of an upstream: who may wait for a handshake, and who probes."""

import pytest

from warmline_server.core.circuit import Circuit, CircuitState

OPEN_S = 30.0


def tripped(at_s: float = 100.0) -> Circuit:
    circuit = Circuit(OPEN_S)
    circuit.trip(at_s)
    return circuit


def test_circuit_new_lets_turns_wait_and_has_nothing_to_probe() -> None:
    circuit = Circuit(OPEN_S)

    assert circuit.allows_waiting
    assert not circuit.take_probe(1e9)
    assert circuit.state is CircuitState.CLOSED


def test_circuit_tripped_lets_no_turn_wait() -> None:
    circuit = tripped()

    assert circuit.state is CircuitState.OPEN
    assert not circuit.allows_waiting


def test_circuit_that_never_opens_ignores_a_trip() -> None:
    circuit = Circuit(0.0)
    circuit.trip(100.0)

    assert circuit.allows_waiting
    assert circuit.state is CircuitState.CLOSED


@pytest.mark.parametrize(
    ("after_s", "probes"), [(OPEN_S - 0.001, False), (OPEN_S, True)], ids=["before", "at_its_time"]
)
def test_circuit_open_probes_when_its_time_is_over(after_s: float, probes: bool) -> None:
    circuit = tripped(100.0)

    assert circuit.take_probe(100.0 + after_s) is probes
    assert circuit.state is (CircuitState.PROBING if probes else CircuitState.OPEN)


def test_circuit_probing_is_one_callers_and_lets_no_turn_wait() -> None:
    circuit = tripped(100.0)
    circuit.take_probe(130.0)

    assert not circuit.take_probe(130.0)
    assert not circuit.take_probe(159.9)
    assert not circuit.allows_waiting


def test_circuit_probe_that_never_reports_is_followed_by_another() -> None:
    circuit = tripped(100.0)
    circuit.take_probe(130.0)

    assert circuit.take_probe(160.0)
    assert not circuit.take_probe(189.9)
    assert circuit.take_probe(190.0)
    assert circuit.state is CircuitState.PROBING


def test_circuit_probe_that_fails_opens_it_anew() -> None:
    circuit = tripped(100.0)
    circuit.take_probe(130.0)

    circuit.trip(140.0)

    assert circuit.state is CircuitState.OPEN
    assert not circuit.take_probe(169.9)
    assert circuit.take_probe(170.0)


@pytest.mark.parametrize("probing", [False, True])
def test_circuit_success_closes_it(probing: bool) -> None:
    circuit = tripped(100.0)
    if probing:
        circuit.take_probe(130.0)

    circuit.reset()

    assert circuit.allows_waiting
    assert not circuit.take_probe(1000.0)


def test_circuit_tripped_again_stays_open_longer() -> None:
    circuit = tripped(100.0)

    circuit.trip(120.0)

    assert not circuit.take_probe(149.9)
    assert circuit.take_probe(150.0)
