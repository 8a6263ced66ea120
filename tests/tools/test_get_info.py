import json
import subprocess
import sys
from pathlib import Path

CONFIG = "configs/dfine/dfine_dinov3_demo.yml"


def call(repo_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo_root / "tools" / "benchmark" / "get_info.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=repo_root, check=False)


def test_costs_of_a_config_as_json(repo_root):
    result = call(repo_root, "-c", CONFIG, "-u", "eval_spatial_size=[64,96]", "--json")
    assert result.returncode == 0, result.stderr
    costs = json.loads(result.stdout)
    train, deploy = costs["parameters"]["train"], costs["parameters"]["deploy"]
    assert list(train) == ["backbone.vit", "backbone.sta", "encoder", "decoder", "total"]
    assert sum(train.values()) == 2 * train["total"]
    assert train["backbone.vit"] == deploy["backbone.vit"]
    assert deploy["encoder"] < train["encoder"] and deploy["decoder"] < train["decoder"]
    assert costs["size_hw"] == [64, 96]
    assert costs["gflops"]["with_attention_products"] > costs["gflops"]["without_attention_products"] > 0.1


def test_faults_end_with_status_2(repo_root):
    result = call(repo_root, "-c", "configs/dfine/missing.yml")
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "missing.yml" in result.stderr
