"""Numbers in Prometheus's text format."""

from flower_nats.metrics import Durations, Metric, by_label, exposition, gauge


def test_each_kind_of_number_is_written_with_its_labels() -> None:
    durations = Durations()
    for seconds in (0.001, 0.2, 100.0):
        durations.note(seconds)

    lines = exposition(
        [
            gauge("things", "Things.", 2.5, kind='a "b"\\'),
            by_label("ends_total", "Ends.", "code", {"OK": 3}),
            by_label("none_total", "None.", "code", {}),
            Metric("call_seconds", "Calls.", durations=(({"api": "A", "method": "B"}, durations),)),
        ]
    ).splitlines()

    assert 'flower_nats_things{kind="a \\"b\\"\\\\"} 2.5' in lines
    assert 'flower_nats_ends_total{code="OK"} 3' in lines
    assert "# TYPE flower_nats_none_total counter" in lines
    assert 'flower_nats_call_seconds_bucket{api="A",le="0.5",method="B"} 2' in lines
    assert 'flower_nats_call_seconds_bucket{api="A",le="+Inf",method="B"} 3' in lines
    assert 'flower_nats_call_seconds_count{api="A",method="B"} 3' in lines
