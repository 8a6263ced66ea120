"""The words and tables of the report's page."""

from pathlib import Path

from . import page
from .confusion import most_confused
from .errors import BACKGROUND_IOU, FOREGROUND_IOU, KINDS
from .findings import Findings
from .gallery import Tile

NUM_CONFUSIONS = 12


def chapters(
    findings: Findings,
    charts: dict[str, Path],
    curves: Path | None,
    predictions: list[Tile],
    errors: dict[str, list[Tile]],
    folder: Path,
    about: str,
) -> list[str]:
    """The page's parts."""
    scored = findings.scored
    real = int((~scored.truth.crowd).sum())
    told = (
        f"{about}. {len(scored.truth.image_ids)} pictures, {real} objects of {len(scored.classes.names)} "
        f"classes, {len(findings.assigned.found.scores)} detections (at most 100 a picture and class)."
    )
    sections = [
        ("precision", "Precision and recall", _precision(findings, charts)),
        ("classes", "Classes", _classes(findings, charts)),
        ("confusions", "Confusions", _confusions(findings, charts)),
        ("errors", "Errors", _errors(findings, charts, errors)),
        ("predictions", "Predictions beside truth", _predictions(findings, predictions)),
    ]
    if curves is not None:
        shown = page.charts([(curves, "losses and average precision over the training steps")])
        sections.insert(0, ("training", "Training", [shown]))
    return [
        f"<h1>{page.text(folder.resolve().name)}</h1>",
        f'<p class="muted">{page.text(told)}</p>',
        page.numbers([(name, percent(value)) for name, value in scored.metrics.numbers().items()]),
        page.links([(name, title) for name, title, _ in sections]),
        *(page.section(name, title, *parts) for name, title, parts in sections),
    ]


def _precision(findings: Findings, charts: dict[str, Path]) -> list[str]:
    threshold = f"from {findings.threshold:.3f} on, F1 of all classes together is highest"
    if not findings.assigned.hits.any():
        threshold = f"no detection is right here, and {findings.threshold:.3f} is taken"
    return [
        page.paragraph(
            "The curves of COCO's measure: the mean height of each is the number beside it. Which score to "
            f"take as threshold depends on the use; {threshold}."
        ),
        page.charts(
            [
                (charts["precision_recall_50"], "precision over recall of each class at IoU 0.50"),
                (
                    charts["precision_recall"],
                    "precision over recall of each class, mean of all IoU thresholds",
                ),
                (charts["precision_recall_thresholds"], "precision over recall at each IoU threshold"),
                (charts["scores"], "precision, recall and F1 over the score threshold"),
            ]
        ),
    ]


def _classes(findings: Findings, charts: dict[str, Path]) -> list[str]:
    right, wrong, missed = (column.tolist() for column in findings.counts)
    rows = [
        (
            row.name,
            str(row.num_objects),
            percent(row.AP),
            percent(row.AP50),
            percent(row.AR_100),
            percent(_share(right[i], right[i] + wrong[i])),
            percent(_share(right[i], right[i] + missed[i])),
        )
        for i, row in enumerate(findings.scored.metrics.classes)
    ]
    head = ("class", "objects", "AP", "AP50", "AR 100", "precision", "recall")
    return [
        page.paragraph(
            "AP, AP50 and AR are COCO's, in percent; precision and recall are at IoU 0.50 with the "
            f"detections of a score from {findings.threshold:.3f} on. A dash stands where there is nothing "
            "to measure."
        ),
        page.table(head, rows, bar=2),
        page.charts([(charts["classes"], "AP and AP50 of each class")]),
    ]


def _confusions(findings: Findings, charts: dict[str, Path]) -> list[str]:
    names = findings.scored.classes.names
    confused = most_confused(findings.matrix, NUM_CONFUSIONS)
    rows = [(names[true], names[predicted], str(count)) for true, predicted, count in confused]
    listed = page.table(("true class", "taken for", "times"), rows, words=2)
    return [
        page.paragraph(
            f"Detections with a score from {findings.threshold:.3f} on. Each first has the object of its own "
            "class that the evaluation gives it at IoU 0.50 (the diagonal); detections and objects that are "
            "left are paired across classes, one to one from an IoU of 0.50 on, the highest IoU first. The "
            "row 'background' counts detections without an object, the column 'missed' objects without a "
            "detection. Crowd regions count nowhere."
        ),
        page.charts([(charts["confusion"], "confusion matrix")]),
        listed if rows else page.paragraph("No class is taken for another one."),
    ]


def _errors(findings: Findings, charts: dict[str, Path], errors: dict[str, list[Tile]]) -> list[str]:
    split, costs = findings.split, findings.costs
    shown = findings.assigned.found.scores >= findings.threshold
    rows = []
    for number, kind in enumerate(KINDS):
        of_kind = split.kinds == number
        all_of_it = int(split.missed.sum()) if kind == "missed" else int(of_kind.sum())
        confident = "" if kind == "missed" else str(int((of_kind & shown).sum()))
        rows.append((kind, percent(costs.kinds[kind]), str(all_of_it), confident))
    head = ("error", "costs AP50", "number", f"from {findings.threshold:.3f} on")
    parts = [
        page.paragraph(
            "Every wrong detection and every missed object is of one kind, after TIDE (Bolya et al., ECCV "
            f"2020, arXiv 2008.08115): a box fits from IoU {FOREGROUND_IOU:.2f} on, and up to IoU "
            f"{BACKGROUND_IOU:.2f} it lies on background. A kind costs what AP50 would gain if it alone were "
            "put right; the kinds do not add up. Detections of any score count, so a kind may be frequent "
            "and cost little."
        ),
        page.table(head, rows),
        page.charts([(charts["errors"], "what each kind of error costs in AP50")]),
        page.colour_key(),
    ]
    for kind, meaning in KINDS.items():
        order = "the largest" if kind == "missed" else "the highest scores"
        parts.append(f'<h3>{page.text(kind)}</h3><p class="muted">{page.text(meaning)}: {order} first</p>')
        parts.append(page.gallery(errors[kind]) if errors[kind] else page.paragraph("There are none."))
    return parts


def _predictions(findings: Findings, predictions: list[Tile]) -> list[str]:
    return [
        page.paragraph(
            "Pictures spread evenly over the set: the annotated objects, and beside them the detections with "
            f"a score from {findings.threshold:.3f} on."
        ),
        page.gallery(predictions) if predictions else page.paragraph("There are no pictures."),
    ]


def percent(value: float) -> str:
    """A number in percent, a dash where there is nothing to measure (-1)."""
    return "–" if value == -1 else f"{100 * value:.1f}"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else -1.0
