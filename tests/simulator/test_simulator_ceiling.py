"""The measurement of the simulator's own speed measures what it says."""

from __future__ import annotations

from warmline_simulator import ceiling


def test_every_phase_gives_figures_that_belong_together() -> None:
    measured = ceiling.measure(seconds=0.3, most_sockets=50)

    by_unit: dict[str, list[float]] = {}
    for each in measured:
        by_unit.setdefault(each.unit, []).append(each.value)
    short, long, sse = by_unit["streams/s"]
    short_events, long_events, sse_events, paced_events = by_unit["events/s"]
    assert min(short, long, sse) > 0
    # A stream of 20 words has 31 events, one of 200 words 211: the 8 around a text and the 3 words of the echo.
    assert 25 < short_events / short < 37
    assert 25 < sse_events / sse < 37
    assert 150 < long_events / long < 270
    assert 0 < paced_events < 1.2 * ceiling.PACED_STREAMS / ceiling.PACE_S
    assert by_unit["sockets"] == [50]
    assert by_unit["handshakes/s"][0] > 0
