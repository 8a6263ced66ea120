"""TensorRT is not here: what would be asked of its builder, and a stub in its place that writes a file."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src import door
from src.deploy.export.onnx_graph import Exported
from src.deploy.export.tensorrt_engine import Graph, read_graph, trtexec_command

ANY = Graph(None, (64, 96), False, 0, {"float32": 10})
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs the door in this process, with nothing on the PATH; gives exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(sys, "argv", ["export_trt.py", *map(str, arguments)])
        main = runpy.run_path(str(repo_root / "tools/deployment/export_trt.py"), run_name="door")["main"]
        capfd.readouterr()
        status = door.run(main)
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """A program that fails where it is told so, else writes its arguments to the engine's place."""
    path = tmp_path / "trtexec"
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "if '--fail' in sys.argv: sys.exit(3)\n"
        "place = next(a for a in sys.argv if a.startswith('--saveEngine=')).partition('=')[2]\n"
        "open(place, 'w').write('\\n'.join(sys.argv[1:]))\n"
    )
    path.chmod(0o755)
    return path


def test_a_dry_run_says_exactly_what_would_be_done(exported: Exported, call: Call) -> None:
    status, out, _ = call("-m", exported.path, "--batch", 1, 4, 16, "--dry-run", "--", "--noTF32")
    weights, command = out.splitlines()
    assert status == 0
    assert weights.startswith("weights, and with them the engine's types: ")
    assert weights.endswith(" float32")
    engine = exported.path.with_suffix(".engine")
    assert command.split() == [
        "trtexec",
        f"--onnx={exported.path}",
        f"--saveEngine={engine}",
        "--stronglyTyped",
        "--skipInference",
        "--minShapes=images:1x3x64x96,orig_target_sizes:1x2",
        "--optShapes=images:4x3x64x96,orig_target_sizes:4x2",
        "--maxShapes=images:16x3x64x96,orig_target_sizes:16x2",
        "--noTF32",
    ]
    assert not engine.exists()


def test_the_engine_is_there_whole_or_not_at_all(
    exported: Exported, call: Call, builder: Path, tmp_path: Path
) -> None:
    engine, cache = tmp_path / "out" / "model.engine", tmp_path / "timing.cache"
    named = ("-m", exported.path, "-o", engine, "--trtexec", builder, "--timing-cache", cache)
    status, _, err = call(*named, "--", "--fail")
    assert status == 2 and "ended with status 3" in err
    assert list(engine.parent.iterdir()) == []
    status, out, _ = call(*named)
    assert status == 0 and f"{engine}: " in out
    told = engine.read_text().splitlines()
    assert (
        f"--timingCacheFile={cache}" in told and "--optShapes=images:1x3x64x96,orig_target_sizes:1x2" in told
    )
    assert [path.name for path in engine.parent.iterdir()] == ["model.engine"]


def test_without_tensorrt_one_line_says_so(exported: Exported, call: Call) -> None:
    status, _, err = call("-m", exported.path)
    assert status == 2
    assert err.startswith("error: trtexec: not found.") and err.count("\n") == 1


def test_a_fixed_graph_is_given_no_shapes(exported: Exported, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(exported.path)
    for one in proto.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = tmp_path / "fixed.onnx"
    onnx.save(proto, fixed)
    graph = read_graph(fixed)
    assert (graph.batch, graph.input_hw, graph.is_fixed) == (2, (64, 96), True)
    command = trtexec_command(fixed, graph, tmp_path / "e", batches=(2, 2, 2))
    assert not [part for part in command if "Shapes" in part]
    with pytest.raises(ValueError, match=r"takes 2 pictures per call, no other number"):
        trtexec_command(fixed, graph, tmp_path / "e", batches=(1, 1, 8))


def test_a_free_size_becomes_the_one_it_was_made_for() -> None:
    command = trtexec_command(Path("m.onnx"), ANY._replace(batch=2), Path("e"))
    assert {f"--{name}Shapes=images:2x3x64x96,orig_target_sizes:2x2" for name in ("min", "opt", "max")} < {
        *command
    }


def test_weights_are_counted_by_type(exported: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    found = read_graph(exported.path).numbers
    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(exported.path).graph.initializer]
    assert found == {"float32": sum(one.size for one in stored if one.dtype == "float32")}


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 4, 2)])
def test_batches_out_of_order_are_refused(batches: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="the least, the usual and the largest"):
        trtexec_command(Path("m.onnx"), ANY, Path("e"), batches=batches)


def test_grid_samples_are_found_and_refused(exported: Exported, call: Call, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(exported.path)
    sampled = onnx.helper.make_node("GridSample", ["x", "g"], ["y"])
    body = onnx.helper.make_graph([sampled], "body", [], [])
    proto.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    proto.graph.node.append(sampled)
    path = tmp_path / "sampled.onnx"
    path.write_bytes(proto.SerializeToString())
    status, _, err = call("-m", path, "--dry-run")
    assert status == 2 and "has 3 GridSample nodes" in err and "--allow-grid-sample" in err
    assert call("-m", path, "--dry-run", "--allow-grid-sample")[0] == 0


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"\xff\xfe not onnx", "cannot be read as ONNX")]
)
def test_what_is_no_file_of_ours_is_refused(
    content: bytes | None, message: str, call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "some.onnx"
    if content is not None:
        path.write_bytes(content)
    status, _, err = call("-m", path, "--dry-run")
    assert status == 2 and message in err and err.count("\n") == 1
