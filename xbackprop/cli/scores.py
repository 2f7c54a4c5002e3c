"""How good predictions are: per class and over all, and how far probabilities can be trusted."""

from typing import Any

import numpy as np

from xbackprop.data.frames import require

_BINS = 10


def classification_scores(
    y: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    classes: tuple[str | int, ...],
) -> dict[str, Any]:
    """Return the scores of classes as plain data; None for what is not defined.

    Parameters
    ----------
    y, predicted : numpy.ndarray of int64, shape (rows,)
        Class indices.
    probabilities : numpy.ndarray of float64, shape (rows, classes), or None
        Without them there is no AUC, log-loss or calibration.
    classes : tuple of str or int
        What the indices stand for.

    Returns
    -------
    dict
    """
    metrics = require("sklearn.metrics", "evaluate")
    codes = np.arange(len(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, predicted, labels=codes, zero_division=np.nan
    )
    rows: list[dict[str, Any]] = [
        {
            "class": label,
            "precision": _plain(precision[code]),
            "recall": _plain(recall[code]),
            "f1": _plain(f1[code]),
            "auc": _auc(metrics, y == code, probabilities, code),
            "rows": int(support[code]),
        }
        for code, label in enumerate(classes)
    ]
    scores: dict[str, Any] = {
        "task": "classification",
        "rows": len(y),
        "accuracy": float((y == predicted).mean()),
        "log_loss": None,
        "auc": None,
        "ece": None,
        "classes": rows,
        "calibration": [],
    }
    if probabilities is not None:
        known = [row["auc"] for row in rows if row["auc"] is not None]
        scores["log_loss"] = float(metrics.log_loss(y, probabilities, labels=codes))
        scores["auc"] = float(np.mean(known)) if known else None
        scores["calibration"] = calibration(y == predicted, probabilities.max(axis=1))
        scores["ece"] = calibration_error(scores["calibration"])
    return scores


def _auc(metrics: Any, is_class: np.ndarray, probabilities: Any, code: int) -> float | None:
    """Return the area under the ROC curve of one class against all others."""
    if probabilities is None or is_class.all() or not is_class.any():
        return None
    return float(metrics.roc_auc_score(is_class, probabilities[:, code]))


def calibration(is_right: np.ndarray, confidence: np.ndarray) -> list[dict[str, Any]]:
    """Return how often predictions are right, by how sure they are.

    Parameters
    ----------
    is_right : numpy.ndarray of bool, shape (rows,)
        Whether each prediction is.
    confidence : numpy.ndarray of float64, shape (rows,)
        The probability of the class that is predicted.

    Returns
    -------
    list of dict
        Of ten intervals ``(from, to]`` those that are not empty.
    """
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    return [
        {
            "from": number / _BINS,
            "to": (number + 1) / _BINS,
            "rows": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(is_right[bins == number].mean()),
        }
        for number in np.unique(bins).tolist()
    ]


def calibration_error(table: list[dict[str, Any]]) -> float:
    """Return the expected calibration error: the mean gap, weighted by rows.

    Parameters
    ----------
    table : list of dict
        What :func:`calibration` returned.

    Returns
    -------
    float

    References
    ----------
    Guo, C. et al. (2017). On Calibration of Modern Neural Networks. ICML, equation 3.
    """
    total = sum(row["rows"] for row in table)
    gaps = (row["rows"] * abs(row["accuracy"] - row["confidence"]) for row in table)
    return float(sum(gaps) / total)


def regression_scores(
    y: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the scores of quantities as plain data; R2 is None where the target is constant.

    Parameters
    ----------
    y, predicted : numpy.ndarray, shape (rows, targets)
        Quantities in their own units.
    names : tuple of str
        Of the targets.

    Returns
    -------
    dict
    """
    truth = y.astype(np.float64)
    error = predicted - truth
    spread = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    squares = np.square(error)
    return {
        "task": "regression",
        "rows": len(y),
        "targets": [
            {
                "target": name,
                "rmse": float(squares[:, place].mean() ** 0.5),
                "mae": float(np.abs(error[:, place]).mean()),
                "r2": (
                    float(1 - squares[:, place].sum() / spread[place]) if spread[place] else None
                ),
            }
            for place, name in enumerate(names)
        ],
    }


def _plain(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def scores_text(scores: dict[str, Any]) -> str:
    """Return scores as tables.

    Parameters
    ----------
    scores : dict
        What one of the functions above returned.

    Returns
    -------
    str
    """
    if scores["task"] == "regression":
        body = _table(
            ("target", "RMSE", "MAE", "R2"), [list(row.values()) for row in scores["targets"]]
        )
        return f"{_rows(scores)}\n\n{body}"
    keys = ("class", "precision", "recall", "f1", "auc", "rows")
    parts = [
        f"{_rows(scores)}, accuracy {100 * scores['accuracy']:.2f} %",
        _table(keys, [[row[key] for key in keys] for row in scores["classes"]]),
    ]
    if scores["ece"] is not None:
        auc = "-" if scores["auc"] is None else f"{scores['auc']:.4f}"
        ece = scores["ece"]
        parts[0] += f", log-loss {scores['log_loss']:.4f}, AUC {auc}, calibration error {ece:.4f}"
        rows = [
            [
                f"{row['from']:.1f} to {row['to']:.1f}",
                row["confidence"],
                row["accuracy"],
                row["rows"],
            ]
            for row in scores["calibration"]
        ]
        parts.append(_table(("probability", "mean", "right", "rows"), rows))
    return "\n\n".join(parts)


def _rows(scores: dict[str, Any]) -> str:
    return f"{scores['rows']} row{'s' * (scores['rows'] != 1)}"


def _table(header: tuple[str, ...], rows: list[list[Any]]) -> str:
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "".join(letter if letter.isprintable() else " " for letter in str(value))
