"""The trainer on tiny models: what decides the weights, which weights it keeps, when it ends, and its events."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import Recorder, changed, make_model, rows, same, script, train, trained, weights

from loralab.data.types import Encoded
from loralab.errors import LoralabError, RunFailed
from loralab.model.dropout import Dropout
from loralab.training.callbacks import Event, StepEnd
from loralab.training.checkpoint import Checkpoint
from loralab.training.loss import Loss
from loralab.training.schedule import multiplier


@pytest.fixture(scope="module")
def data(tiny: Path) -> Encoded:
    """40 rows: five batches of eight."""
    return rows(tiny, 10)


@pytest.fixture(scope="module")
def held_out(tiny: Path) -> Encoded:
    return rows(tiny, 4, seed=1)


# What decides the weights


@pytest.mark.parametrize("loss", [Loss(), Loss(torch.tensor([1.3, 0.7, 2.5, 0.2]), 0.1, 2.0)], ids=["plain", "weighted"])
def test_the_size_of_micro_batches_does_not_change_the_weights(tiny: Path, data: Encoded, loss: Loss) -> None:
    outcomes = []
    for max_tokens_per_microbatch in (64, 8192):
        model = make_model(tiny)
        recorder = Recorder()
        train(model, data, loss=loss, max_tokens_per_microbatch=max_tokens_per_microbatch, listeners=[recorder])
        outcomes.append((trained(model), [event.loss for event in recorder.steps]))
    (small, small_losses), (large, large_losses) = outcomes
    assert changed(trained(make_model(tiny)), large) == large.keys()
    for name, tensor in small.items():
        torch.testing.assert_close(tensor, large[name], rtol=0, atol=1e-5)
    assert small_losses == pytest.approx(large_losses, abs=1e-5)


@pytest.mark.parametrize(
    ("dtype", "threads"),
    [(torch.float32, 1), (torch.bfloat16, 1), pytest.param(torch.float32, 2, marks=pytest.mark.slow)],
)
def test_two_runs_give_the_same_weights_bit_for_bit(
    tiny: Path, data: Encoded, held_out: Encoded, dtype: torch.dtype, threads: int
) -> None:
    torch.set_num_threads(threads)
    outcomes = []
    for ambient in (1, 2):
        torch.manual_seed(ambient)  # the global state must not matter
        np.random.seed(ambient)
        model = make_model(tiny, dropout=0.2)
        model.freeze_to(dtype)
        result = train(model, data, held_out, max_steps=10 if threads == 1 else 4)
        outcomes.append((weights(model), dict(result.scores)))
    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


def test_training_leaves_the_global_random_state_unchanged(tiny: Path, data: Encoded) -> None:
    model = make_model(tiny, dropout=0.2)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    train(model, data, epochs=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numbers  # type: ignore[index]


def test_another_seed_gives_different_weights(tiny: Path, data: Encoded) -> None:
    first, second = make_model(tiny), make_model(tiny)
    train(first, data, seed=0)
    train(second, data, seed=1)
    assert changed(trained(first), trained(second)) == trained(first).keys()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_has_a_seed_of_its_own(tiny: Path, data: Encoded, dropout: float) -> None:
    outcomes = []
    for seed in (1, 100):
        model = make_model(tiny, dropout=dropout)
        for module in model.modules():
            if isinstance(module, Dropout):
                module.seed = seed
        train(model, data, epochs=1.0)
        outcomes.append(trained(model))
    assert same(*outcomes) is (dropout == 0.0)


def test_it_learns(tiny: Path, data: Encoded) -> None:
    result = train(make_model(tiny, rank=8, alpha=16.0, targets=("all",)), data, data, epochs=12.0, learning_rate=1e-2)
    assert result.scores["accuracy"] > 0.9


# What is trained, and how fast


@pytest.mark.parametrize(("tuning", "prefixes"), [("head", ("head.out.",)), ("lora", ("head.out.", ".adapters."))])
def test_only_what_the_tuning_names_is_trained(tiny: Path, data: Encoded, tuning: str, prefixes: tuple[str, ...]) -> None:
    model = make_model(tiny, tuning=tuning)
    before = weights(model)
    train(model, data, epochs=1.0)
    expected = {name for name in before if any(prefix in name for prefix in prefixes)}
    assert changed(before, weights(model)) == expected
    assert len(expected) == (2 if tuning == "head" else 2 + 3 * 2 * 2)


def test_full_tuning_trains_everything(tiny: Path, data: Encoded) -> None:
    model = make_model(tiny, tuning="full")
    before = weights(model)
    train(model, data, epochs=1.0)
    assert changed(before, weights(model)) == before.keys()


def test_the_heads_learning_rate_is_the_heads_alone(tiny: Path, data: Encoded) -> None:
    plain, apart = make_model(tiny), make_model(tiny)
    train(plain, data, max_steps=1, warmup=0.0, weight_decay=0.0, learning_rate=1e-3)
    train(apart, data, max_steps=1, warmup=0.0, weight_decay=0.0, learning_rate=1e-3, head_learning_rate=1e-1)
    assert changed(trained(plain), trained(apart)) == {"head.out.weight", "head.out.bias"}
    start = trained(make_model(tiny))
    for model, rate in ((plain, 1e-3), (apart, 1e-1)):  # AdamW's first step is the rate itself, in the gradient's direction
        moved = trained(model)["head.out.bias"] - start["head.out.bias"]
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, rate), rtol=1e-3, atol=0)


def test_weight_decay_shrinks_matrices_and_leaves_biases_and_norms(tiny: Path, data: Encoded) -> None:
    plain, decayed = make_model(tiny, tuning="full"), make_model(tiny, tuning="full")
    start = weights(plain)
    train(plain, data, max_steps=1, warmup=0.0, weight_decay=0.0, learning_rate=1e-3)
    train(decayed, data, max_steps=1, warmup=0.0, weight_decay=0.5, learning_rate=1e-3)
    without, with_decay = weights(plain), weights(decayed)
    vectors = {name for name, tensor in start.items() if tensor.ndim == 1}
    assert changed(without, with_decay) == start.keys() - vectors
    for name in start.keys() - vectors:
        torch.testing.assert_close(without[name] - with_decay[name], 1e-3 * 0.5 * start[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("head_learning_rate", [None, 1e-4])
def test_the_reported_rate_follows_the_schedule(tiny: Path, data: Encoded, schedule: str, head_learning_rate: float | None) -> None:
    recorder = Recorder()
    train(
        make_model(tiny),
        data,
        schedule=schedule,
        warmup=3.0,
        learning_rate=1e-3,
        head_learning_rate=head_learning_rate,
        listeners=[recorder],
    )
    expected = [1e-3 * multiplier(step, 10, 3, schedule) for step in range(10)]
    assert [event.learning_rate for event in recorder.steps] == pytest.approx(expected)


def test_gradients_are_clipped_to_the_norm(tiny: Path, data: Encoded) -> None:
    # AdamW forgets the scale of one gradient, not the ratio of two: a clip that binds at every step changes the second step.
    models = [make_model(tiny) for _ in range(2)]
    recorders = [Recorder() for _ in models]
    for model, recorder, norm in zip(models, recorders, (1e9, 1e-3), strict=True):
        train(model, data, max_steps=3, max_grad_norm=norm, listeners=[recorder])
    assert recorders[0].steps[0].gradient_norm == pytest.approx(recorders[1].steps[0].gradient_norm, rel=1e-6)
    assert recorders[0].steps[0].gradient_norm > 1e-3
    assert changed(trained(models[0]), trained(models[1]))


# How long it trains, and its events


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"),
    [(2.0, None, 10), (2.0, 3, 3), (1.0, 50, 5), (0.5, None, 3), (0.2, None, 1), (0.01, None, 1), (2.4, None, 12)],
)
def test_epochs_may_be_fractional_and_max_steps_ends_them(
    tiny: Path, data: Encoded, epochs: float, max_steps: int | None, steps: int
) -> None:
    recorder = Recorder()
    result = train(make_model(tiny), data, epochs=epochs, max_steps=max_steps, listeners=[recorder])
    assert result.steps == steps
    assert [event.step for event in recorder.steps] == list(range(1, steps + 1))
    assert {event.steps for event in recorder.steps} == {steps}
    assert recorder.steps[-1].epoch == pytest.approx(steps / 5)
    assert not result.stopped_early


def test_fractional_epochs_round_up_by_rows_not_by_floating_point(tiny: Path) -> None:
    recorder = Recorder()

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    train(make_model(tiny), rows(tiny, 25), batch_size=4, epochs=2.2, listeners=[recorder, stop])
    assert recorder.steps[0].steps == 55  # 2.2 epochs of 25 steps; in floats 55.00000000000001


def test_every_row_is_trained_once_an_epoch(tiny: Path) -> None:
    data = rows(tiny, 5)  # 20 rows: steps of 8, 8 and 4
    recorder = Recorder()
    result = train(make_model(tiny), data, epochs=2.0, listeners=[recorder])
    assert result.steps == 6
    assert result.samples == 40
    sizes = np.diff([0, *(event.samples for event in recorder.steps)])
    assert sorted(sizes[:3]) == sorted(sizes[3:]) == [4, 8, 8]
    assert result.samples_per_second > 0


@pytest.mark.parametrize(
    ("eval_steps", "max_steps", "steps"), [(None, None, [5, 10]), (3, None, [3, 6, 9, 10]), (5, None, [5, 10]), (4, 7, [4, 7])]
)
def test_it_evaluates_every_epoch_or_every_n_steps_and_at_the_end(
    tiny: Path, data: Encoded, held_out: Encoded, eval_steps: int | None, max_steps: int | None, steps: list[int]
) -> None:
    recorder = Recorder()
    train(make_model(tiny), data, held_out, eval_steps=eval_steps, max_steps=max_steps, listeners=[recorder])
    assert [event.step for event in recorder.evaluations] == steps
    assert [event.epoch for event in recorder.evaluations] == pytest.approx([step / 5 for step in steps])


def test_no_training_is_one_evaluation_of_the_initial_model(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    model = make_model(tiny)
    before = weights(model)
    recorder = Recorder()
    result = train(model, data, held_out, epochs=0.0, listeners=[recorder])
    assert (result.steps, result.best_step, result.samples) == (0, 0, 0)
    assert same(weights(model), before)
    assert [type(event).__name__ for event in recorder.events] == ["EvalEnd"]
    assert result.scores["loss"] > 0
    assert not result.stopped_early
    assert not model.training


@pytest.mark.parametrize("epochs", [0.0, 2.0])
def test_without_validation_rows_the_last_weights_stay(tiny: Path, data: Encoded, held_out: Encoded, epochs: float) -> None:
    model = make_model(tiny)
    recorder = Recorder()
    result = train(model, data, None, epochs=epochs, monitor="loss", patience=1, listeners=[recorder])
    assert recorder.evaluations == []
    assert result.scores == {}
    assert result.best_step == result.steps == int(epochs * 5)
    again = make_model(tiny)
    train(again, data, held_out, epochs=epochs, score=script(*[1.0 / (i + 1) for i in range(9)]))
    assert same(trained(model), trained(again))  # there every evaluation was better, so there too the last ones stay


def test_evaluating_does_not_change_training(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    models = [make_model(tiny, dropout=0.2) for _ in range(2)]
    train(models[0], data, None)
    train(models[1], data, held_out, eval_steps=1, score=script(*[1.0 / (i + 1) for i in range(10)]))
    assert same(trained(models[0]), trained(models[1]))


# Which weights it keeps, and early stopping


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_model_ends_with_the_weights_of_the_best_evaluation(
    tiny: Path, data: Encoded, held_out: Encoded, dtype: torch.dtype
) -> None:
    model = make_model(tiny, dropout=0.1)
    model.freeze_to(dtype)
    recorder = Recorder(model)
    result = train(model, data, held_out, eval_steps=2, score=script(0.9, 0.5, 0.7, 0.6, 0.8), listeners=[recorder])
    assert [event.improved for event in recorder.evaluations] == [True, True, False, False, False]
    assert result.best_step == 4
    assert result.scores == {"loss": 0.5}
    assert same(trained(model), recorder.snapshots[4])
    assert not same(recorder.snapshots[10], recorder.snapshots[4])
    assert not model.training
    assert result.steps == 10
    assert not result.stopped_early


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "f1:Sci/Tech"])
def test_the_best_evaluation_is_the_best_by_the_monitored_score(tiny: Path, data: Encoded, held_out: Encoded, monitor: str) -> None:
    model = make_model(tiny, targets=("all",))
    recorder = Recorder(model)
    result = train(model, data, held_out, eval_steps=1, epochs=3.0, monitor=monitor, listeners=[recorder])
    sign = -1 if monitor == "loss" else 1
    best = max(recorder.evaluations, key=lambda event: (sign * event.scores[monitor], -event.step))
    assert result.best_step == best.step
    assert result.scores == best.scores
    assert same(trained(model), recorder.snapshots[best.step])


def test_it_stops_without_patience_left_with_the_best_weights(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    model = make_model(tiny)
    recorder = Recorder(model)
    result = train(
        model,
        data,
        held_out,
        eval_steps=1,
        score=script(0.9, 0.5, 0.7, 0.6, 0.1),
        monitor="loss",
        patience=2,
        listeners=[recorder],
    )
    assert result.stopped_early
    assert (result.steps, result.best_step) == (4, 2)
    assert same(trained(model), recorder.snapshots[2])
    assert not result.interrupted


def test_no_patience_left_at_the_last_step_is_no_early_stop(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    result = train(make_model(tiny), data, held_out, max_steps=2, eval_steps=1, score=script(0.5, 0.9), monitor="loss", patience=1)
    assert not result.stopped_early
    assert result.best_step == 1


# Failures


@pytest.mark.parametrize("at", [1, 5])
def test_ctrl_c_ends_the_run_with_the_best_weights_so_far(tiny: Path, data: Encoded, held_out: Encoded, at: int) -> None:
    model = make_model(tiny)
    recorder = Recorder(model)

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == at:
            raise KeyboardInterrupt

    result = train(model, data, held_out, eval_steps=1, score=script(0.9, 0.5, 0.7, 0.6, 0.8), listeners=[recorder, stop])
    assert result.interrupted
    assert not result.stopped_early
    assert result.steps == at
    assert not model.training
    if at == 5:
        assert result.best_step == 2
        assert result.scores == {"loss": 0.5}
        assert same(trained(model), recorder.snapshots[2])
    else:  # nothing was evaluated yet: the last weights are all there is
        assert result.best_step == 1
        assert result.scores == {}


def test_ctrl_c_during_an_evaluation_keeps_the_best_weights(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    model = make_model(tiny)
    recorder = Recorder(model)
    answers = iter([0.5, 0.7])

    def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        value = next(answers, None)
        if value is None:
            raise KeyboardInterrupt
        return {"loss": value}

    result = train(model, data, held_out, eval_steps=1, score=score, listeners=[recorder])
    assert result.interrupted
    assert (result.steps, result.best_step) == (3, 1)
    assert same(trained(model), recorder.snapshots[1])


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_the_run_with_advice(tiny: Path, data: Encoded, poison: float) -> None:
    model = make_model(tiny)

    def ruin(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 2:
            with torch.no_grad():
                model.head.out.weight.fill_(poison)

    with pytest.raises(RunFailed, match=r"the loss is nan at step 3: lower train\.learning_rate"):
        train(model, data, listeners=[ruin])


class _Cusp(Loss):
    """A finite loss with a NaN gradient: √0."""

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, row_weights: torch.Tensor | None = None) -> torch.Tensor:
        return super().__call__(logits, labels, row_weights) + torch.sqrt(logits.sum() * 0)


def test_a_gradient_that_is_not_finite_fails_the_run_before_the_update(tiny: Path, data: Encoded) -> None:
    model = make_model(tiny)
    with pytest.raises(RunFailed):
        train(model, data, loss=_Cusp(), max_steps=1)
    assert all(torch.isfinite(tensor).all() for tensor in trained(model).values())


def test_a_listeners_error_propagates(tiny: Path, data: Encoded) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(make_model(tiny), data, listeners=[broken])


# Resuming


def test_a_run_resumed_from_any_checkpoint_ends_with_the_same_weights_bit_for_bit(
    tiny: Path, data: Encoded, held_out: Encoded, tmp_path: Path
) -> None:
    losses = [0.9, 0.5, 0.7, 0.6, 0.8]
    checkpoints: list[Checkpoint] = []
    whole, recorder = make_model(tiny, dropout=0.2), Recorder()
    result = train(
        whole, data, held_out, eval_steps=2, score=script(*losses), listeners=[recorder], save_checkpoint=checkpoints.append
    )
    assert [checkpoint.step for checkpoint in checkpoints] == [2, 4, 6, 8, 10]
    for number, checkpoint in enumerate(checkpoints, start=1):
        checkpoint.save(tmp_path / "checkpoint.safetensors")
        resumed, rest = make_model(tiny, dropout=0.2), Recorder()
        again = train(
            resumed,
            data,
            held_out,
            eval_steps=2,
            score=script(*losses[number:]),
            listeners=[rest],
            resume=Checkpoint.load(tmp_path / "checkpoint.safetensors"),
        )
        assert same(weights(resumed), weights(whole))
        assert (again.steps, again.best_step, again.scores) == (result.steps, result.best_step, result.scores)
        assert again.samples == result.samples
        assert [event.loss for event in rest.steps] == [event.loss for event in recorder.steps if event.step > checkpoint.step]
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint.safetensors"]


def test_a_resumed_run_keeps_its_patience(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    checkpoints: list[Checkpoint] = []
    whole, resumed, ended = (make_model(tiny) for _ in range(3))
    settings: dict[str, Any] = {"eval_steps": 1, "max_steps": 9}
    train(
        whole,
        data,
        held_out,
        score=script(0.5, 0.9, 0.9),
        monitor="loss",
        patience=2,
        save_checkpoint=checkpoints.append,
        **settings,
    )
    again = train(resumed, data, held_out, score=script(0.9), monitor="loss", patience=2, resume=checkpoints[1], **settings)
    assert (again.steps, again.best_step, again.stopped_early) == (3, 1, True)
    assert same(trained(resumed), trained(whole))
    last = train(ended, data, held_out, score=script(), monitor="loss", patience=2, resume=checkpoints[2], **settings)
    assert (last.steps, last.best_step, last.stopped_early) == (3, 1, True)
    assert same(trained(ended), trained(whole))


def test_saving_checkpoints_does_not_change_training(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    models = [make_model(tiny, dropout=0.2) for _ in range(2)]
    checkpoints: list[Checkpoint] = []
    train(models[0], data, held_out)
    train(models[1], data, held_out, save_checkpoint=checkpoints.append)
    assert same(weights(models[0]), weights(models[1]))


def test_a_checkpoint_of_another_model_is_refused(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    checkpoints: list[Checkpoint] = []
    train(make_model(tiny), data, held_out, save_checkpoint=checkpoints.append)
    for other in (make_model(tiny, rank=2), make_model(tiny, targets=("all",))):
        with pytest.raises(LoralabError, match="the checkpoint is not of this run"):
            train(other, data, held_out, resume=checkpoints[0])


def test_lora_plus_gives_b_its_own_learning_rate(tiny: Path, data: Encoded) -> None:
    """The first step of Adam moves every weight by its learning rate: B by 8 times the rate of A."""
    plain, plus = make_model(tiny), make_model(tiny)
    before = weights(plain)
    settings: dict[str, Any] = {"max_steps": 1, "warmup": 0.0, "schedule": "constant", "weight_decay": 0.0, "learning_rate": 1e-3}
    train(plain, data, **settings)
    train(plus, data, loraplus_lr_ratio=8.0, **settings)
    for name, start in before.items():
        moved = [float((model.get_parameter(name).detach() - start).abs().max()) for model in (plain, plus)]
        if name.endswith(".b"):
            assert moved[1] == pytest.approx(8 * moved[0], rel=1e-3)
            assert moved[0] > 0
        else:
            assert moved[1] == moved[0]


def test_fp16_learns_and_resumes_bit_for_bit(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    whole, resumed = make_model(tiny), make_model(tiny)
    for model in (whole, resumed):
        model.freeze_to(torch.float16)
    checkpoints: list[Checkpoint] = []
    settings: dict[str, Any] = {"epochs": 6.0, "learning_rate": 1e-2}
    result = train(whole, data, held_out, save_checkpoint=checkpoints.append, **settings)
    assert result.scores["accuracy"] > 0.6
    assert checkpoints[0].values["scaler"]["scale"] > 1
    train(resumed, data, held_out, resume=checkpoints[1], **settings)
    assert same(trained(whole), trained(resumed))


def test_a_gradient_that_overflows_in_fp16_skips_the_step_and_halves_the_scale(tiny: Path, data: Encoded) -> None:
    model = make_model(tiny)
    model.freeze_to(torch.float16)
    recorder = Recorder()
    train(model, data, loss=Loss(torch.full((4,), 1e4)), max_steps=3, listeners=[recorder])
    assert all(math.isfinite(event.loss) for event in recorder.steps)
    assert all(bool(torch.isfinite(weight).all()) for weight in trained(model).values())


def test_an_evaluation_reports_the_memory_in_use(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    recorder = Recorder()
    train(make_model(tiny), data, held_out, listeners=[recorder])
    memory = recorder.evaluations[0].memory
    assert memory["gpu_mb"] is None
    assert 50 < (memory["process_mb"] or 0) < 20_000
