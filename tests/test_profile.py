"""`xb.observe.profile()`: the records of ops, their sums, and the trace."""

import contextlib
import json
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.backend.timing import Stopwatch
from xbackprop.dispatch import op
from xbackprop.observe.profiling.records import OpRecord, PhaseRecord, Traffic
from xbackprop.observe.profiling.totals import layer_totals, op_totals
from xbackprop.observe.profiling.trace import trace_events


@op(formula="output = x + x")
def twice_forward(x):
    time.sleep(0.01)
    return x + x, ()


@op
def nested_forward(x):
    time.sleep(0.02)
    return twice_forward(twice_forward(x)[0])[0], ()


class Nested(nn.Module):
    def forward(self, x):
        return nested_forward(x)

    def backward(self, grad_output, saved, *, input_grad=True):
        return 4 * grad_output


def mlp():
    return nn.Sequential(nn.Linear(8, 16, rng=0), nn.ReLU(), nn.Linear(16, 4, rng=1))


def profiled_step(steps=1):
    model, loss_fn = mlp(), nn.MSELoss()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    x, y = (xb.asarray(np.ones((32, width))) for width in (8, 4))
    with xb.observe.profile() as p:
        for _ in range(steps):
            optimizer.zero_grad()
            output, saved = model.forward(x)
            loss, loss_saved = loss_fn.forward(output, y)
            model.backward(loss_fn.backward(1.0, loss_saved), saved)
            optimizer.step()
    return p, model, loss


def test_a_step_is_recorded_op_by_op(xb_device):
    p, _, _ = profiled_step()
    assert [(r.op, r.layer, r.phase) for r in p.records] == [
        ("linear_forward", "Sequential.0", "forward"),
        ("relu_forward", "Sequential.1", "forward"),
        ("linear_forward", "Sequential.2", "forward"),
        ("mse_loss_forward", "MSELoss", "forward"),
        ("mse_loss_backward", "MSELoss", "backward"),
        ("linear_backward", "Sequential.2", "backward"),
        ("relu_backward", "Sequential.1", "backward"),
        ("linear_backward", "Sequential.0", "backward"),
        ("sgd_update", "", "update"),
    ]
    assert {r.device for r in p.records} == {str(xb_device)}
    assert p.records[0].flops == 2 * 32 * 8 * 16
    # x, weight, bias, output; the kernel says that the bias reads the output and writes it again.
    outputs = 3 if xb_device.kind == "fake" else 1
    assert p.records[0].bytes == 4 * (32 * 8 + 8 * 16 + 16 + outputs * 32 * 16)
    has_time = xb_device.kind != "fake"
    assert all((r.seconds is not None) is has_time for r in p.records)
    if xb_device.kind == "fake":  # products, sums and elementwise kernels of each op
        assert [r.traffic.launches for r in p.records] == [2, 1, 2, 4, 1, 3, 1, 3, 2]


def test_results_do_not_change(xb_device):
    _, observed, loss = profiled_step(3)
    model, loss_fn = mlp(), nn.MSELoss()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    x, y = (xb.asarray(np.ones((32, width))) for width in (8, 4))
    for _ in range(3):
        optimizer.zero_grad()
        with xb.use_references():  # unwatched, a small network would run as one op
            plain, _ = xb.value_and_grad(model, loss_fn)(x, y)
        optimizer.step()
    assert xb.to_host(plain) == xb.to_host(loss)
    for one, other in zip(model.parameters(), observed.parameters(), strict=True):
        np.testing.assert_array_equal(xb.to_host(one.data), xb.to_host(other.data))


def test_nothing_crosses_and_nothing_is_launched_by_the_observer():
    with xb.use_device("fake"), xb.transfer_log() as plain:
        layer, x = nn.LayerNorm(8), xb.asarray(np.ones((4, 8)))
        output, saved = layer.forward(x)
        layer.backward(output, saved)
    with xb.use_device("fake"), xb.transfer_log() as observed, xb.observe.profile() as p:
        layer, x = nn.LayerNorm(8), xb.asarray(np.ones((4, 8)))
        output, saved = layer.forward(x)
        layer.backward(output, saved)
    counts = (plain.launches, plain.uploads, plain.downloads, plain.synchronizations)
    assert counts == (observed.launches, observed.uploads, 0, 0)
    assert p.traffic.counts()[:4] == counts


def test_time_of_its_own_is_without_the_calls_inside():
    with xb.use_device("cpu"), xb.observe.profile() as p:
        Nested()(np.ones(3, np.float32))
    assert [(r.op, r.number, r.parent) for r in p.records] == [
        ("nested_forward", 0, None), ("twice_forward", 1, 0), ("twice_forward", 2, 0),
    ]  # fmt: skip
    totals = {total.name: total for total in p.by_op()}
    outer, inner = totals["nested_forward"], totals["twice_forward"]
    assert outer.seconds >= 0.04
    assert 0.02 <= outer.self_seconds < outer.seconds - inner.seconds + 1e-6
    assert (inner.calls, inner.flops, outer.flops, outer.uncounted) == (2, 6, None, 1)
    assert [total.calls for total in p.by_layer()] == [1]  # ops inside of ops are in them


def test_the_observer_takes_its_own_time_out(monkeypatch):
    from xbackprop.observe.profiling import recording

    def slow(*arguments):
        time.sleep(0.05)
        return 0

    def slow_path():
        time.sleep(0.3)
        return "Nested"

    monkeypatch.setattr(recording, "layer_path", slow_path)
    monkeypatch.setattr(recording, "count_flops", slow)
    monkeypatch.setattr(recording, "count_bytes", slow)
    with xb.use_device("cpu"), xb.observe.profile() as p, p.phase("all"):
        Nested()(np.ones(3, np.float32))
    assert p.overhead_seconds >= 0.6
    assert p.records[0].seconds < 0.2
    assert p.phases[0].seconds < 0.2


def test_phases_hold_what_runs_outside_of_ops():
    with xb.use_device("fake"), xb.observe.profile() as p:
        with p.phase("batch"):
            x = xb.asarray(np.ones((2, 3)))
        with p.phase("arithmetic"):
            y = x + x
            float(y[0, 0])
    batch, arithmetic = p.phases
    assert (batch.traffic.uploads, batch.traffic.bytes_uploaded) == (1, 24)
    assert (arithmetic.traffic.launches, arithmetic.traffic.downloads) == (1, 1)
    lines = {(line.kind, line.count, line.filename) for line in p.transfers}
    assert ("launch", 1, __file__) in lines
    assert ("download", 1, __file__) in lines


def test_a_block_that_fails_keeps_what_it_had():
    kept = []

    def fail():
        with xb.use_device("cpu"), xb.observe.profile() as p:
            kept.append(p)
            nn.ReLU()(np.ones(3, np.float32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [r.op for r in kept[0].records] == ["relu_forward"]


def test_a_profile_may_begin_inside_of_an_op():
    kept = []

    @op
    def outer_forward(x):
        with xb.observe.profile() as p:
            twice_forward(x)
        kept.append(p)
        return x, ()

    class Silent:
        def before(self, call):
            pass

        def after(self, call, result):
            pass

    with xb.use_device("cpu"), xb.observe(Silent()):
        outer_forward(np.ones(3, np.float32))
    assert [(r.op, r.parent) for r in kept[0].records] == [("twice_forward", None)]


def test_moments_on_a_gpu_are_events(monkeypatch):
    """The calls that are made of CuPy; not yet measured on a GPU."""
    now = iter([100.0, 100.0, 250.0, 400.0])  # milliseconds, as a stream reaches the events

    class Event:
        def record(self):
            self.time = next(now)

        def synchronize(self):
            pass

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda a, b: b.time - a.time)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(Device, "activate", lambda self: contextlib.nullcontext())
    watch = Stopwatch()
    moments = [watch.mark(Device("cuda", 0)) for _ in range(4)]
    seconds = [watch.seconds(moment) for moment in moments]
    assert np.diff(seconds).tolist() == pytest.approx([0, 0.15, 0.15])
    assert seconds[0] == pytest.approx(time.perf_counter(), abs=1)


def record(number, layer, start, end, *, phase="forward", parent=None, op="op", flops=None):
    return OpRecord(number, parent, op, layer, phase, "cpu", start, end, flops, 8, Traffic(1))


def test_sums_of_layers_hold_the_layers_inside():
    records = [
        record(0, "Net.a.0", 0.0, 1.0, flops=5),
        record(1, "Net.a.1", 1.0, 3.0),
        record(2, "Net.ab", 3.0, 4.0, phase="backward", flops=7),
        record(3, "", 4.0, 4.5, phase="update"),
    ]
    totals = {total.name: total for total in layer_totals(records)}
    assert [total.name for total in layer_totals(records)][:2] == ["Net.a.1", "Net.a.0"]
    assert (totals["Net"].seconds, totals["Net"].self_seconds) == (4.0, 0.0)
    assert (totals["Net.a"].seconds, totals["Net.a"].flops, totals["Net.a"].uncounted) == (3, 5, 1)
    assert totals["Net"].phases == {"forward": 3.0, "backward": 1.0}
    assert totals["(update)"].seconds == 0.5
    assert totals["Net"].traffic.launches == 3
    assert op_totals(records)[0].flops == 12


def test_the_trace_nests_phases_layers_and_ops():
    records = [
        record(0, "Net.a.0", 10.0, 11.0),
        record(1, "Net.a.0", 10.25, 10.5, parent=0, op="inner"),
        record(2, "Net.a.1", 11.5, 12.0),
        record(3, "Net.b", 12.0, 13.0),
        record(4, "Net.b", 14.0, 15.0, phase="backward"),
    ]
    phases = [
        PhaseRecord("forward", 9.0, 13.5, Traffic()),
        PhaseRecord("backward", 14.0, 16.0, Traffic()),
    ]
    trace = json.loads(json.dumps(trace_events(records, phases), allow_nan=False))
    found = [
        (event["cat"], event["name"], event["ts"], event["dur"])
        for event in trace["traceEvents"]
        if event["ph"] == "X"
    ]
    assert found == [
        ("phase", "forward", 0, 4.5e6),
        ("layer", "Net", 1e6, 3e6),
        ("layer", "Net.a", 1e6, 2e6),
        ("layer", "Net.a.0", 1e6, 1e6),
        ("op", "op", 1e6, 1e6),
        ("op", "inner", 1.25e6, 0.25e6),
        ("layer", "Net.a.1", 2.5e6, 0.5e6),
        ("op", "op", 2.5e6, 0.5e6),
        ("layer", "Net.b", 3e6, 1e6),
        ("op", "op", 3e6, 1e6),
        ("phase", "backward", 5e6, 2e6),
        ("layer", "Net", 5e6, 1e6),
        ("layer", "Net.b", 5e6, 1e6),
        ("op", "op", 5e6, 1e6),
    ]


def test_the_trace_of_a_step_is_a_tree():
    with xb.use_device("cpu"):
        p, _, _ = profiled_step(2)
    events = [event for event in p.trace()["traceEvents"] if event["ph"] == "X"]
    assert {event["cat"] for event in events} == {"layer", "op"}
    open_until = []
    for event in events:
        start, end = event["ts"], event["ts"] + event["dur"]
        while open_until and open_until[-1] <= start + 1e-6:
            open_until.pop()
        assert all(end <= outer + 1e-6 for outer in open_until)
        open_until.append(end)
    assert all(a["ts"] <= b["ts"] for a, b in pairwise(events))


def test_the_stand_in_has_no_trace():
    with xb.use_device("fake"):
        p, _, _ = profiled_step()
    with pytest.raises(RuntimeError, match="have none; profile on cpu or cuda"):
        p.trace()


def test_an_empty_block():
    with xb.use_device("cpu"), xb.observe.profile() as p:
        pass
    assert (p.records, p.by_op(), p.by_layer()) == ([], [], [])
    assert len(p.trace()["traceEvents"]) == 1
