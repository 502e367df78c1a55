"""Scores against scikit-learn's own, and the names that early stopping may use."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
)

from loralab.errors import LoralabError
from loralab.metrics import (
    CalibrationBin,
    balance,
    balance_pair,
    brier,
    calibration_bins,
    calibration_totals,
    check_monitor,
    expected_calibration_error,
    fit_temperature,
    macro_remark,
    probability_scores,
    scores,
    softmax,
    table,
    temperature_remark,
    tracked_scores,
)

CLASSES = ("World", "Sports", "Business", "Sci/Tech")


def guesses(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize(("n", "classes", "seed"), [(500, 4, 0), (37, 2, 1), (200, 9, 2), (12, 9, 3), (1, 4, 4)])
def test_scores_are_scikit_learns(n: int, classes: int, seed: int) -> None:
    names = tuple(f"class {i}" for i in range(classes))
    logits, labels = guesses(n, classes, seed)
    predicted, numbers = logits.argmax(axis=1), list(range(classes))
    result = scores(logits, labels, names)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert result["loss"] == pytest.approx(log_loss(labels, probabilities, labels=numbers), rel=1e-9)
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    present = sorted({*labels.tolist()})
    assert result["macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=present, average="macro", zero_division=0))
    assert result["macro_f1_all"] == pytest.approx(f1_score(labels, predicted, labels=numbers, average="macro", zero_division=0))
    if len(present) == classes:
        assert result["macro_f1"] == result["macro_f1_all"]
    by_class = f1_score(labels, predicted, labels=present, average=None, zero_division=0)
    assert result["balance"] == pytest.approx(by_class.min() / by_class.max() if by_class.any() else 1.0)
    matrix = confusion_matrix(labels, predicted, labels=numbers)
    for kind, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = score(labels, predicted, labels=numbers, average=None, zero_division=0)
        defined = {f"{kind}:{names[i]}": expected[i] for i in present}  # a class without rows has none of these
        assert {name: value for name, value in result.items() if name.startswith(f"{kind}:")} == pytest.approx(defined)
    assert [result[f"true:{name}"] for name in names] == matrix.sum(axis=1).tolist()
    assert [result[f"predicted:{name}"] for name in names] == matrix.sum(axis=0).tolist()
    assert result["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted) if n > 1 else 0.0)
    assert result["kappa"] == pytest.approx(cohen_kappa_score(labels, predicted, labels=numbers) if n > 1 else 0.0)
    hot = np.eye(classes)[labels]
    assert result["brier"] == pytest.approx(((probabilities - hot) ** 2).sum(axis=1).mean())
    assert len(result) == 9 + 3 * len(present) + 2 * classes
    assert all(type(value) is float for value in result.values())


def test_scores_of_three_rows_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]], dtype=np.float32))
    result = scores(logits, np.array([0, 1, 1]), ("a", "b", "c"))
    assert result["loss"] == pytest.approx((2 * np.log(2) + np.log(4)) / 3)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert (result["precision:a"], result["recall:a"], result["f1:a"]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert (result["precision:b"], result["recall:b"], result["f1:b"]) == pytest.approx((1, 1 / 2, 2 / 3))
    assert not {"precision:c", "recall:c", "f1:c"} & {*result}  # no row is c
    assert (result["macro_f1"], result["macro_f1_all"]) == pytest.approx((2 / 3, 4 / 9))


def test_agreement_beyond_chance_is_0_where_all_rows_are_of_one_class_and_predicted_so() -> None:
    result = scores(np.eye(3, dtype=np.float32)[[0, 0]], np.array([0, 0]), ("a", "b", "c"))
    assert (result["accuracy"], result["mcc"], result["kappa"]) == (1.0, 0.0, 0.0)


def test_scores_of_probabilities_use_the_temperature() -> None:
    logits, labels = guesses(300, 4, 0)
    probabilities = softmax(logits, 2.5)
    assert probability_scores(logits, labels, 2.5) == {
        "loss": pytest.approx(log_loss(labels, probabilities, labels=range(4))),
        "ece": pytest.approx(expected_calibration_error(probabilities, labels)),
        "brier": pytest.approx(brier(probabilities, labels)),
    }


def test_the_loss_is_finite_where_the_logits_are_extreme() -> None:
    result = scores(np.array([[1e30, -1e30]], dtype=np.float32), np.array([0]), ("a", "b"))
    assert result["loss"] == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["balance:Business/Sci/Tech", "balance:Sci-Tech/Business", "balance:business-sci-tech"])
def test_balance_is_the_smaller_f1_over_the_larger(name: str) -> None:
    logits, labels = guesses(300, 4, 0)
    result = scores(logits, labels, CLASSES, names=[name])
    low, high = sorted((result["f1:Business"], result["f1:Sci/Tech"]))
    assert 0 < low < high
    assert result[name] == pytest.approx(low / high)
    assert name not in scores(logits, labels, CLASSES)


@pytest.mark.parametrize(("first", "second", "expected"), [(0.8, 0.4, 0.5), (0.4, 0.8, 0.5), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0)])
def test_balance_by_hand(first: float, second: float, expected: float) -> None:
    assert balance({"f1:a": first, "f1:b": second}, ("a", "b")) == expected


@pytest.mark.parametrize("classes", [CLASSES, ("a-b", "c", "d/e-f", "g h"), ("1", "2"), ("no", "Läden", "f1:x", "loss")])
def test_every_score_and_every_pair_may_be_named(classes: tuple[str, ...]) -> None:
    logits, labels = guesses(50, len(classes), 0)
    pairs = [f"balance:{a}/{b}" for a in classes for b in classes if a != b]
    kinds = [f"{kind}:{name}" for kind in ("precision", "recall", "f1") for name in classes]
    for name in ("loss", "accuracy", "macro_f1", "macro_f1_all", "balance", *kinds, *pairs):
        check_monitor(name, classes)
        assert name in scores(logits, labels, classes, names=[name])


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("balance:a-b/c", ("a-b", "c")),
        ("balance:a-b-c", ("a-b", "c")),
        ("balance:c-a/b", ("c", "a-b")),
        ("balance:d/e/a-b", ("d/e", "a-b")),
        ("balance:a-b/a-b", None),
        ("balance:c", None),
        ("balance:", None),
        ("f1:c", None),
        ("balance", None),
    ],
)
def test_a_pair_is_read_though_its_names_hold_slashes_and_hyphens(name: str, pair: tuple[str, str] | None) -> None:
    assert balance_pair(name, ("a-b", "c", "d/e")) == pair


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("acuracy", "accuracy"),
        ("macro-f1", "macro_f1"),
        ("f1:Bussiness", "f1:Business"),
        ("recall:Wrold", "recall:World"),
        ("los", "loss"),
    ],
)
def test_a_misspelt_score_is_told_with_the_nearest_and_the_valid_ones(name: str, nearest: str) -> None:
    with pytest.raises(LoralabError) as caught:
        check_monitor(name, CLASSES)
    message = str(caught.value)
    assert f"there is no score {name!r}; did you mean {nearest!r}?" in message
    assert message.endswith(
        "; valid: loss, accuracy, macro_f1, macro_f1_all, balance, mcc, kappa, ece, brier, precision:NAME, recall:NAME, f1:NAME, "
        "balance:NAME/NAME with NAME of World, Sports, Business, Sci/Tech"
    )


@pytest.mark.parametrize("name", ["", "f1", "f1:", "true:World", "eval_loss", "balance:World/World", "balance:World", "f1:world "])
def test_what_is_no_score_is_refused(name: str) -> None:
    with pytest.raises(LoralabError, match=r"train\.monitor"):
        check_monitor(name, CLASSES)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("f1:World", "World"),
        ("recall:Sci/Tech", "Sci/Tech"),
        ("precision:World", "World"),
        ("balance:Sports/World", "World"),
        ("balance:Sci-Tech/World", "Sci/Tech or World"),
        ("f1:Sports", None),
        ("balance:Sports/Business", None),
        ("macro_f1", None),
    ],
)
def test_a_score_of_a_class_without_validation_rows_is_not_monitored(name: str, absent: str | None) -> None:
    counts = {"World": 0, "Sports": 3, "Business": 1}
    if absent is None:
        check_monitor(name, CLASSES, counts)
        return
    with pytest.raises(LoralabError, match=rf"train.monitor={name}: no validation row is {absent}, .*data.validation"):
        check_monitor(name, CLASSES, counts)
    check_monitor(name, CLASSES)


@pytest.mark.parametrize(
    ("track", "names"),
    [
        (["f1:Business,balance,macro_f1"], ("loss", "f1:Business", "balance", "macro_f1")),
        (["f1:Arts, Culture,accuracy"], ("loss", "f1:Arts, Culture", "accuracy")),
        (["f1:Arts", " f1:Arts, Culture ", "f1:Arts"], ("loss", "f1:Arts", "f1:Arts, Culture")),
        (["balance:Arts, Culture/Business, loss,", "f1:a:b,c"], ("loss", "balance:Arts, Culture/Business", "f1:a:b,c")),
        (["f1:Culture,accuracy"], ("loss", "f1:Culture", "accuracy")),
        ([], ("loss",)),
    ],
)
def test_tracked_names_are_split_at_the_commas_between_them(track: list[str], names: tuple[str, ...]) -> None:
    assert tracked_scores("loss", track, ("Arts", "Arts, Culture", "Business", "a:b,c")) == names


def test_a_wrong_name_to_track_is_refused_under_its_setting() -> None:
    with pytest.raises(LoralabError, match=r"train\.track: there is no score 'f1:Wrold'; did you mean 'f1:World'"):
        check_monitor("f1:Wrold", CLASSES, setting="train.track")


def test_the_table_has_a_row_for_each_class_in_order() -> None:
    logits, labels = guesses(100, 4, 0)
    result = scores(logits, labels, CLASSES)
    rows = table(result, CLASSES)
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["f1"] for row in rows] == [result[f"f1:{name}"] for name in CLASSES]
    assert sum(row["true"] for row in rows) == sum(row["predicted"] for row in rows) == 100


@pytest.mark.parametrize(
    ("labels", "remark"),
    [
        ([0, 1, 2, 3], ""),
        ([0, 1, 2, 2], "macro F1 over 3 of 4 classes; Sci/Tech has no test row; over all classes, these as 0: 0."),
        ([1, 1, 3, 3], "macro F1 over 2 of 4 classes; World, Business have no test row; over all classes"),
        ([1, 1, 1, 1], "macro F1 over 1 of 4 classes; World, Business, Sci/Tech have no test row; over all classes"),
    ],
)
def test_classes_without_rows_are_left_out_of_macro_f1_and_named(labels: list[int], remark: str) -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    result = scores(logits, np.array(labels), CLASSES, names=["balance:World/Sports"])
    present = [name for name in CLASSES if result[f"true:{name}"]]
    assert result["macro_f1"] == pytest.approx(np.mean([result[f"f1:{name}"] for name in present]))
    assert result["macro_f1_all"] == pytest.approx(sum(result[f"f1:{name}"] for name in present) / 4)
    sentence = macro_remark(result, CLASSES)
    assert sentence.startswith(remark)
    assert bool(sentence) == bool(remark)
    absent = [row for row in table(result, CLASSES) if row["class"] not in present]
    assert all(row["precision"] is row["recall"] is row["f1"] is None and row["true"] == 0 for row in absent)
    assert ("balance:World/Sports" in result) == ({"World", "Sports"} <= {*present})


def test_a_remark_lists_a_few_of_many_absent_classes() -> None:
    names = tuple(f"class {i}" for i in range(40))
    result = scores(np.eye(40, dtype=np.float32)[:2], np.array([0, 1]), names)
    eight = "class 2, class 3, class 4, class 5, class 6, class 7, class 8, class 9"
    assert f"; {eight} and 30 more have no test row" in macro_remark(result, names)
    assert f"; {eight} have no test row" in macro_remark(result, names[:10])


def test_softmax_is_scipys_at_any_temperature() -> None:
    from scipy.special import softmax as theirs

    logits, _ = guesses(50, 4, 0)
    for temperature in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(softmax(logits, temperature), theirs(logits.astype(np.float64) / temperature, axis=1))
    assert softmax(np.array([[1e30, 0.0], [0.0, 0.0]], dtype=np.float32)).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert softmax(np.empty((0, 4), dtype=np.float32)).shape == (0, 4)


@pytest.mark.parametrize("bins", [15, 4])
def test_calibration_error_is_the_sum_over_equal_bins(bins: int) -> None:
    logits, labels = guesses(800, 4, 5)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean()) if inside.any() else 0.0
    result = (
        expected_calibration_error(probabilities, labels) if bins == 15 else expected_calibration_error(probabilities, labels, bins)
    )
    assert result == pytest.approx(expected)


def test_calibration_bins_by_hand() -> None:
    """A bin holds its upper end. A confidence of 0, or above 1 by a rounding error, belongs to the first or last bin."""
    confidence = np.array([0.0, 0.06, 1 / 15, 0.07, 0.12, 0.97, 1.0, 1.0 + 1e-12])
    totals = calibration_totals(confidence, np.array([True, False, False, True, True, False, True, True]))
    expected = (
        CalibrationBin(0.0, 1 / 15, 3, 1, pytest.approx((0.06 + 1 / 15) / 3)),
        CalibrationBin(1 / 15, 2 / 15, 2, 2, pytest.approx(0.095)),
        CalibrationBin(14 / 15, 1.0, 3, 2, pytest.approx(0.99)),
    )
    assert calibration_bins(totals) == expected
    assert totals.shape == (3, 15)
    doubled = calibration_bins(totals + calibration_totals(np.array([0.12]), np.array([False])))
    assert [(entry.rows, entry.correct, entry.accuracy) for entry in doubled] == [(3, 1, 1 / 3), (3, 2, 2 / 3), (3, 2, 2 / 3)]


def test_few_bins_hold_few_rows() -> None:
    """Totals have a column for every bin, also above the last that holds rows."""
    assert calibration_totals(np.array([0.5]), np.array([True])).sum(axis=1).tolist() == [1.0, 0.5, 1.0]
    assert calibration_totals(np.array([0.5]), np.array([True])).shape == (3, 15)


def test_calibration_error_and_brier_by_hand() -> None:
    """Two rows of confidence 0.9, one right; two of 0.55, both right: gaps of 0.4 and 0.45, in bins of half the rows."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 1])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.4 + 0.5 * 0.45)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0.025)
    assert brier(probabilities, labels) == pytest.approx((2 * 0.01 + 2 * 0.81 + 4 * 0.2025) / 4)
    assert (brier(np.eye(3), np.arange(3)), brier(np.eye(3), (np.arange(3) + 1) % 3)) == (0, 2)


def _overconfident(rows: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `factor` times those that the labels were drawn from."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(rows, 3))
    labels = np.array([random.choice(3, p=row) for row in softmax(logits.astype(np.float32))])
    return (factor * logits).astype(np.float32), labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_many_rows_find_the_temperature_that_was_hidden(factor: float) -> None:
    assert fit_temperature(*_overconfident(5000, factor)) == pytest.approx(factor, rel=0.07)


def test_few_rows_keep_the_temperature_near_one() -> None:
    right = np.eye(3, dtype=np.float32)[np.arange(200) % 3] * 4, np.arange(200) % 3
    temperatures = [fit_temperature(right[0][:n], right[1][:n]) for n in (8, 19, 20, 60, 200)]
    assert temperatures[:2] == [1.0, 1.0], "too few rows"
    assert temperatures[2:] == sorted(temperatures[2:], reverse=True)
    assert 0.8 < temperatures[2] < 1
    assert temperatures[-1] > 0.4, "all rows right: the likelihood alone would say 0"


def test_the_temperature_has_bounds() -> None:
    """Ten thousand rows outweigh the prior: logits all but alike suggest T below 0.05, and huge wrong ones T above 20."""
    labels = np.arange(10_000) % 2
    logits = np.eye(2, dtype=np.float32)[labels]
    assert fit_temperature(0.01 * logits, labels) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(-1000 * logits, labels) == pytest.approx(20, rel=1e-3)


def test_no_temperature_fits_better() -> None:
    logits, labels = _overconfident(60, 2.0)

    def cost(temperature: float) -> float:
        probabilities = softmax(logits, temperature)[np.arange(60), labels]
        return float(-np.log(probabilities).sum() + np.log(temperature) ** 2 / (2 * 0.25**2))

    fitted = fit_temperature(logits, labels)
    assert cost(fitted) <= min(cost(t) for t in np.geomspace(0.05, 20, 4000)) + 1e-4


def test_the_remark_says_when_there_is_no_temperature() -> None:
    assert (
        temperature_remark(0.5, 40)
        == "Temperature 0.500, fitted on 40 validation rows, calibrates the probabilities. It changes no predicted class."
    )
    assert temperature_remark(0.5, 20).startswith("Temperature 0.500, fitted on 20 validation rows")
    assert temperature_remark(1.0, 8) == "Probabilities are not calibrated: that needs 20 validation rows, and there are 8."
