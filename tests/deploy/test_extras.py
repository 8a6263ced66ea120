import subprocess
import sys
from pathlib import Path

import pytest

from src.deploy.extras import require


def test_openvino_tells_nobody(repo_root: Path) -> None:
    pytest.importorskip("openvino", reason="pip install -r requirements-openvino.txt")
    code = (
        "import sys; from src.deploy.extras import require; require('openvino').Core();"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True)


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(ValueError, match="'no_such_package' is not installed; run: pip install -r req"):
        require("no_such_package")
