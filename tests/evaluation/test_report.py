import json

from src.evaluation import ClassMetrics, CocoMetrics, write_metrics

METRICS = CocoMetrics(*[k / 12 for k in range(12)], classes=(ClassMetrics("cat", 17, 0.5, 0.6, 0.7, 3),))


def test_write_metrics_is_json_and_replaces(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_metrics(METRICS, path)
    write_metrics(METRICS, path)
    assert json.loads(path.read_text()) == METRICS.to_dict()
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]
