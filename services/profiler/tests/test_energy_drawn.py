"""What a stretch drew, from counters that are read now and then."""

import pytest

from windfall.profiler.measurement.energy import Meter, Readings, drawn


def every_100_ms(*meters: dict[str, Meter]) -> list[Readings]:
    return [Readings(10 + 0.1 * index, one) for index, one in enumerate(meters)]


def test_energy_counters_are_believed_before_momentary_power() -> None:
    found = drawn(every_100_ms(*({"nvidia.0": Meter(joules=30.0 * n, watts=1.0)} for n in range(11))), 10, 12)
    assert found is not None
    assert found.watts == pytest.approx(300)
    assert found.about is not None and found.about.low == pytest.approx(300)


def test_power_alone_is_taken_over_time_and_devices_are_summed() -> None:
    found = drawn(every_100_ms(*({"amd.0": Meter(watts=200.0), "amd.1": Meter(watts=100.0)} for _ in range(5))), 0, 99)
    assert found is not None
    assert found.watts == pytest.approx(300)


def test_a_counter_that_begins_anew_goes_on() -> None:
    meters = [{"cpu.0": Meter(joules=joules, wraps_at=262.0)} for joules in (258.0, 261.0, 2.0, 5.0)]
    found = drawn(every_100_ms(*meters), 0, 99)
    assert found is not None
    assert found.watts == pytest.approx(30)


@pytest.mark.parametrize(
    "readings",
    [
        pytest.param([], id="none"),
        pytest.param(every_100_ms({"a": Meter(1)}, {"a": Meter(2)}), id="too-few"),
        pytest.param(every_100_ms({}, {}, {}, {}), id="no-counter"),
        pytest.param(every_100_ms({"a": Meter(1), "b": Meter(1)}, {"a": Meter(2)}, {"a": Meter(3)}), id="device-lost"),
    ],
)
def test_what_cannot_be_known_is_not_said(readings: list[Readings]) -> None:
    assert drawn(readings, 0, 99) is None


def test_only_what_lies_within_counts() -> None:
    meters = [{"a": Meter(joules=1.0 * n if n < 10 else 10.0 * n)} for n in range(20)]
    found = drawn(every_100_ms(*meters), 11.0, 11.91)
    assert found is not None
    assert found.watts == pytest.approx(100)
