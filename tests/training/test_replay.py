"""Recorded passes: training with them is training without, bit for bit, wherever what is played is what was recorded.

CUDA graphs want a GPU; what is around them does not. `keep` stands for one: it plays by computing anew over the recorded tensors,
and puts what it finds where the recording put it, as a graph does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workbench import network, rows, same, train, trained

from loralab.data.values import Encoded
from loralab.model.dropout import Dropout, Tape, Turn, turn
from loralab.training import engine, prefix_cache, replay, stacked
from loralab.training.callbacks import Watch
from loralab.training.engine import Fit, Optimisation
from loralab.training.loss import Loss
from loralab.training.replay import Play, Replay
from loralab.training.stacked import fit_stacked

plays: list[int] = []


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    plays.clear()


def keep(work: Play) -> Play:
    kept = work()

    def play() -> Tensor:
        plays.append(1)
        return kept.copy_(work())

    return play


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and training records its passes."""

    def begin() -> None:
        monkeypatch.setattr(engine.Loop, "_can_be_recorded", lambda loop: True)
        monkeypatch.setattr(engine, "cuda_graphs", lambda: keep)
        monkeypatch.setattr(stacked, "cuda_graphs", lambda: keep)

    return begin


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3},
        {"dropout": 0.3, "targets": ("all",), "loss": Loss(torch.tensor([1.3, 0.7, 2.5, 0.2]), 0.1, 2.0)},
        {"dropout": 0.3, "tokens_per_pass": 32},  # several passes of one shape in a step: none may overwrite another's gradients
        {"tuning": "full"},
        {"tuning": "head"},
    ],
    ids=["dropout", "every loss", "several passes", "full", "head"],
)
def test_training_with_recordings_is_training_without(
    tiny: Path, recorded: Callable[[], None], settings: dict[str, object]
) -> None:
    settings = dict(settings)
    building = {name: settings.pop(name) for name in ("dropout", "targets", "tuning") if name in settings}
    found = []
    for begin in (lambda: None, recorded):
        begin()
        net = network(tiny, **building)
        train(net, rows(tiny, 10), rows(tiny, 2), epochs=4.0, **settings)
        found.append(trained(net))
    assert len(plays) > 10
    assert same(*found)


def test_kept_hidden_states_are_recorded_too(tiny: Path, tmp_path: Path, recorded: Callable[[], None]) -> None:
    found = []
    for begin in (lambda: None, recorded):
        begin()
        net, data = network(tiny, dropout=0.3, layers="top1"), rows(tiny, 10)
        kept: Encoded = prefix_cache.plan(net, [data], setting="memory", limit=1e9, epochs=4, folder=tmp_path, identity="cpu").keep(
            net, data
        )
        assert kept.start is not None
        train(net, kept, epochs=4.0)
        found.append(trained(net))
    assert len(plays) > 10
    assert same(*found)


def test_a_tape_draws_the_masks_of_the_turns_it_is_set_to_over_wider_texts() -> None:
    """Two runs' turns, alternating: of texts, and of pooled ones."""
    dropouts = [Dropout(0.3).train(), Dropout(0.5).train()]
    dropouts[1].seed = 1 << 63

    def draw(turns: Sequence[Turn], times: tuple[int, int]) -> list[Tensor]:
        found = []
        for _ in range(2):
            for dropout, each, time in zip(dropouts, turns, times, strict=True):
                with each:
                    found += [dropout(torch.ones(4, time, 6)), dropout(torch.ones(4, 6)), dropout(torch.ones(4, 1, 6))]
        return found

    recorded = [turn(1), turn(1)]
    tape = Tape(recorded, torch.device("cpu"))
    with tape:
        draw(recorded, (9, 9))
    tape.set([turn(2, 5, time=7), turn(3)])
    with tape:
        taped = draw(recorded, (9, 9))
    expected = draw([turn(2, 5), turn(3)], (7, 9))
    for one, other in zip(taped, expected, strict=True):
        assert torch.equal(one[:, : other.shape[1]], other)
    padded = draw([turn(2, 5, time=7), turn(3)], (9, 9))
    for one, other in zip(padded, expected, strict=True):
        assert torch.equal(one[:, : other.shape[1]], other)
    untaped = draw([turn(1), turn(1)], (9, 9))
    assert not torch.equal(untaped[0], taped[0])  # and without a tape a turn's own again


def test_runs_trained_together_may_be_recorded(tiny: Path, recorded: Callable[[], None]) -> None:
    """Of unequal lengths, so that one ends before the others, with a last step of fewer rows, and with dropout."""
    found: list[list[dict[str, Tensor]]] = []
    for begin in (lambda: None, recorded):
        begin()
        nets = [network(tiny, dropout=0.3, seed=seed, targets=("all",)) for seed in range(3)]
        loops = [
            engine.Loop(net, rows(tiny, 9), None, Loss(), lambda a, b: {}, Watch("loss"), seed, Optimisation(epochs, batch_size=8))
            for seed, (net, epochs) in enumerate(zip(nets, (6.0, 3.0, 6.0), strict=True))
        ]
        assert all(isinstance(each, Fit) for each in fit_stacked(loops, rectangle=True))
        found.append([trained(net) for net in nets])
    assert len(plays) > 5
    for unrecorded, other in zip(*found, strict=True):
        for name, weight in unrecorded.items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5)


def test_a_recording_that_differs_is_not_used(tiny: Path, recorded: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(work: Play) -> Play:
        play = keep(work)
        return lambda: 1.1 * play()

    recorded()
    monkeypatch.setattr(engine, "cuda_graphs", lambda: wrong)
    expected, net = network(tiny), network(tiny)
    with pytest.warns(UserWarning, match=r"differ by 0\.1"):
        train(net, rows(tiny, 10), epochs=3.0)
    assert len(plays) == 1
    monkeypatch.undo()
    train(expected, rows(tiny, 10), epochs=3.0)
    assert same(trained(net), trained(expected))


def test_a_recording_that_fails_ends_recording_not_training(
    tiny: Path, recorded: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Play) -> Play:
        raise RuntimeError("operation not permitted when stream is capturing\nand a long story")

    recorded()
    monkeypatch.setattr(engine, "cuda_graphs", lambda: fail)
    net = network(tiny)
    with pytest.warns(UserWarning, match=r"stream is capturing\): training goes on"):
        assert train(net, rows(tiny, 10), epochs=3.0).steps == 15


def test_shapes_beyond_the_most_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_SHAPES", 2)
    run = Replay(keep)
    for time in range(3):
        for size in range(1, 5):
            _, found = run(lambda turns, inputs: [inputs[0].sum(), 2 * inputs[0]], [turn(1)], [torch.full((size,), 1.0 + time)])
            assert found is not None
            assert torch.equal(found, torch.full((size,), 2.0 + 2 * time))
    assert len(plays) == 4  # two shapes, checked the second time and played the third


def test_what_is_recorded(tiny: Path) -> None:
    def recorded(net: nn.Module, device: str = "cuda", **settings: Any) -> bool:
        loop = engine.Loop(net, rows(tiny, 2), None, Loss(), lambda a, b: {}, Watch("loss"), 0, Optimisation(**settings))
        assert loop.replay.record is None  # here is no GPU
        loop.device = torch.device(device)
        return loop._can_be_recorded()

    assert recorded(network(tiny))
    assert not recorded(network(tiny), "cpu")
    assert not recorded(network(tiny), cuda_graphs=False)
    assert not recorded(nn.Linear(1, 1))
    recomputing, half = network(tiny), network(tiny)
    recomputing.gradient_checkpointing = True
    half.compute_dtype = torch.float16  # its gradients are scaled by what the last step found
    assert not recorded(recomputing)
    assert not recorded(half)


@pytest.mark.gpu
def test_cuda_graphs_train_what_training_without_them_does(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    found = []
    for graphs in (True, False):
        if not graphs:
            monkeypatch.setattr(engine.Loop, "_can_be_recorded", lambda loop: False)
        net = network(tiny, dropout=0.3).cuda()
        train(net, rows(tiny, 10), epochs=4.0)
        found.append(trained(net))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-3)
