"""What a run says at its end: what is best, where it is, and what to do with it."""

from collections.abc import Mapping
from pathlib import Path


def closing_words(output_dir: Path, metric: str, best: Mapping[str, float]) -> str:
    """The best evaluation, the files, and the commands that test and export them.

    Args:
        output_dir: Folder of the run.
        metric: The number that decided what is best.
        best: The numbers of the best evaluation and its epoch; empty where there was none.
    """
    config, weights = output_dir / "config.yml", output_dir / "best.pth"
    if not best:
        return f"the run is over without an evaluation; its weights are in {output_dir / 'last.pth'}"
    numbers = ", ".join(f"{name} {best[name]:.4f}" for name in dict.fromkeys((metric, "AP", "AP50")))
    told = f"the run is over; best in epoch {best['epoch']:g}: {numbers}"
    if not weights.exists():
        return f"{told}; {weights} is missing, the newest weights are in {output_dir / 'last.pth'}"
    report, numbers_in = output_dir / "report.html", output_dir / "metrics.jsonl"
    # a run that was killed, and resumed past its best, has drawn none: `test` below does
    shown = f"report   {report}" if report.exists() else f"curves   {output_dir / 'curves.png'}"
    return (
        f"{told}\n"
        f"  weights  {weights} (the newest: {output_dir / 'last.pth'})\n"
        f"  {shown}, numbers in {numbers_in} and .csv\n"
        f"  test     python train.py -c {config} --test-only -r {weights}\n"
        f"  export   python tools/deployment/export_onnx.py -c {config} -r {weights}"
    )
