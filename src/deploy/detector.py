"""A trained detector as a person uses it: load a file, call it with pictures, get what is in them."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from .. import assembly, distributed
from ..nn.deploy import to_deploy
from ..structures import ClassNames
from . import hub
from .checkpoint_files import config_file
from .lean import make_lean
from .predictor import Found, Predictor
from .results import Result
from .runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime
from .slicing import predict_sliced, tiles
from .sources import Frame, Source, is_moving, list_sources, read
from .trained import Trained, kind_of_backbone, stamp_of

CHECKPOINTS = (".pth", ".safetensors")
FIRST = ("best.pth", "last.pth")
THRESHOLD = 0.4
OVERLAP = 0.2


class Detector:
    """A detector with one behaviour, whatever runs it: PyTorch, ONNX Runtime or OpenVINO.

    Several threads may call one detector: nothing of a call stays in it. In PyTorch (not compiled) and ONNX
    Runtime their calls run beside each other, in OpenVINO one waits for the other.
    """

    def __init__(self, runtime: Runtime, trained: Trained | None = None) -> None:
        self._predictor = Predictor(runtime)
        self._trained = trained

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        overrides: Sequence[str] = (),
        device: str | None = None,
        num_threads: int = 0,
        compiled: bool = False,
        as_trained: bool = False,
        input_size: tuple[int, int] | None = None,
        bfloat16: bool = False,
    ) -> "Detector":
        """Open a checkpoint (`.pth`, `.safetensors`), an exported `.onnx`, OpenVINO's `.xml`, or a folder.

        A folder stands for its `best.pth`, or else its `last.pth`, or else the one such file that it holds.

        Args:
            path: The file or folder.
            config: The YAML file to build a checkpoint's model from; a checkpoint of ours holds its own, and
                one that D-FINE's authors publish needs it.
            overrides: Changes to that config, `key=value` each.
            device: Where a checkpoint's model runs: cpu, cuda, cuda:1 ...; None takes a GPU if there is one.
            num_threads: Threads for a call of an exported file, 0 for as many as there are cores.
            compiled: Compile a checkpoint's model first; such a detector serves one thread.
            as_trained: Leave a checkpoint's model as it was trained, instead of in the form that is deployed:
                slower, the same within rounding.
            input_size: (height, width) that pictures are brought to, None for the model's own; a checkpoint
                takes any, an exported file its own alone unless it was exported with `--dynamic-size`.
            bfloat16: Calculate in bfloat16, of an `.xml` alone: faster, and less exact. A processor without
                instructions for it calculates in float32, which the log says.

        Raises:
            ValueError: The file is missing, broken or of no kind named here, it does not fit the config, or a
                setting is stated that means nothing for it.
        """
        file = _in_folder(Path(path))
        if bfloat16 and file.suffix != ".xml":
            raise ValueError(
                f"{file}: bfloat16 is for OpenVINO's .xml files; make one of an .onnx file with "
                "tools/deployment/export_openvino.py"
            )
        if file.suffix in CHECKPOINTS:
            if num_threads:
                raise ValueError(f"{file}: threads are for exported files; set OMP_NUM_THREADS for PyTorch")
            if input_size is not None:
                overrides = (*overrides, f"eval_spatial_size={list(input_size)}")
            return cls(*_load_checkpoint(file, config, overrides, device, compiled, as_trained))
        if file.suffix not in (".onnx", ".xml"):
            raise ValueError(f"{file}: is no {', '.join(CHECKPOINTS)}, .onnx or .xml file, nor a folder")
        if config is not None or overrides or compiled or as_trained or device not in (None, "cpu"):
            raise ValueError(
                f"{file}: an exported file holds its whole model and runs on the CPU; leave config, "
                "overrides, device, compiling and as_trained out"
            )
        if file.suffix == ".xml":
            return cls(OpenVinoRuntime(file, num_threads=num_threads, bfloat16=bfloat16, input_hw=input_size))
        return cls(OnnxRuntime(file, num_threads=num_threads, input_hw=input_size))

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo_id: str | Path,
        *,
        revision: str | None = None,
        download: bool = False,
        device: str | None = None,
    ) -> "Detector":
        """Open what `save_pretrained` wrote. Nothing is downloaded unless `download` says so.

        Args:
            folder_or_repo_id: A folder, or the id of a repository on the Hugging Face hub that was downloaded
                before.
            revision: Branch, tag or commit of the repository.
            download: Ask the hub for the repository, and download what is not there yet.
            device: As of `load`.

        Raises:
            ValueError: There is neither, or it is incomplete or damaged.
        """
        weights = hub.find_pretrained(folder_or_repo_id, revision=revision, download=download)
        return cls.load(weights, device=device)

    def save_pretrained(
        self, folder: str | Path, *, license: str | None = None, license_file: str | Path | None = None
    ) -> None:
        """Write a checkpoint's weights, config and a page about it into `folder`, as the hub knows models.

        Args:
            folder: Made where it is missing; what it holds under other names stays.
            license: Under which licence its owner gives the model away, by the hub's name (`apache-2.0`).
            license_file: The licence's text, which becomes the folder's LICENSE.md; without it there is none,
                and one that was there is removed.

        Raises:
            ValueError: This is an exported file's detector, its checkpoint has changed since, a licence is
                stated for weights that are under DINOv3's, or a file cannot be read or written.
        """
        hub.save_pretrained(self._trained, folder, license=license, license_file=license_file)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        license: str | None = None,
        license_file: str | Path | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the hub, and give its address there.

        Args:
            repo_id: `user/name`; made where it is missing.
            private: Whether a repository that is made can be seen by its owner alone.
            license: As of `save_pretrained`.
            license_file: As of `save_pretrained`; what is under DINOv3's licence is not uploaded without it.

        Raises:
            ValueError: As of `save_pretrained`, or the hub refuses.
        """
        return hub.push_to_hub(
            self._trained, repo_id, private=private, license=license, license_file=license_file
        )

    @property
    def runtime(self) -> Runtime:
        """What runs the model."""
        return self._predictor.runtime

    @property
    def classes(self) -> ClassNames:
        """Names and original ids of the classes, by the index that a result gives as label."""
        return self.runtime.classes

    def __call__(
        self,
        images: Source | Sequence[Source],
        threshold: float = THRESHOLD,
        *,
        batch_size: int = 1,
        slice_px: int | None = None,
        overlap: float = OVERLAP,
    ) -> list[Result] | Iterator[Result]:
        """Detect: a list of results, one for each picture, or where there is a video or camera, an iterator.

        Args:
            images: A picture file, folder or pattern such as "shots/*.jpg"; a PIL picture; a numpy array
                [H, W, 3] uint8 RGB; a tensor [3, H, W] RGB, uint8 or float in [0, 1]; a video file; the
                number of a camera; a list of these.
            threshold: Detections of a lower score are left out.
            batch_size: Pictures in one call of the model.
            slice_px: Detect also in tiles of so many pixels a side, for small objects in large pictures.
            overlap: Share of a tile's side that it has in common with its neighbour.

        Raises:
            ValueError: There is no such picture, it cannot be read, or a setting is out of range.
        """
        sources = list_sources(images)
        found = self.stream(sources, threshold, batch_size=batch_size, slice_px=slice_px, overlap=overlap)
        if any(map(is_moving, sources)):
            return found
        return [one if one.path is None else dataclasses.replace(one, picture=None) for one in found]

    def stream(
        self,
        images: Source | Sequence[Source],
        threshold: float = THRESHOLD,
        *,
        batch_size: int = 1,
        slice_px: int | None = None,
        overlap: float = OVERLAP,
    ) -> Iterator[Result]:
        """Detect in pictures one batch after another, in any number of them; arguments as of a call.

        Pictures that cannot be found are told at once, pictures that cannot be read in their turn.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} was asked for, allowed are 0 to 1")
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} was asked for, allowed is 1 or more")
        if slice_px is not None:
            tiles((1, 1), slice_px, overlap)  # refuses what is out of range before anything is read
        frames = read(list_sources(images))

        def results() -> Iterator[Result]:
            while batch := list(islice(frames, batch_size)):
                images, names = [frame.image for frame in batch], [frame.name for frame in batch]
                if slice_px is None:
                    found = self._predictor.predict(images, names, threshold)
                else:
                    found = [
                        predict_sliced(self._predictor, *one, threshold, batch_size, slice_px, overlap)
                        for one in zip(images, names, strict=True)
                    ]
                for frame, one in zip(batch, found, strict=True):
                    yield self._result(frame, one)

        return results()

    def _result(self, frame: Frame, found: Found) -> Result:
        size_hw = (frame.image.height, frame.image.width)
        return Result(*found, self.classes, size_hw, frame.name, frame.path, frame.number, frame.image)


def _in_folder(path: Path) -> Path:
    """`path`, or what a folder stands for."""
    if not path.is_dir():
        return path
    for name in FIRST:
        if (path / name).is_file():
            return path / name
    kinds = (*CHECKPOINTS, ".onnx", ".xml")
    found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in kinds)
    if len(found) != 1:
        told = ", ".join(file.name for file in found) or "none"
        raise ValueError(
            f"{path}: a folder with {' or '.join(FIRST)}, or with one {', '.join(kinds)} file is taken, and "
            f"there is {told}; name the file"
        )
    return found[0]


def _load_checkpoint(
    file: Path,
    config: str | Path | None,
    overrides: Sequence[str],
    device: str | None,
    compiled: bool,
    as_trained: bool,
) -> tuple[TorchRuntime, Trained]:
    """The checkpoint's model in PyTorch, and where it comes from."""
    chosen = distributed.choose_device(device)
    stamp = stamp_of(file)
    with config_file(file, None if config is None else Path(config)) as described:
        model, postprocessor, classes, experiment = assembly.load_detector(described, file, overrides)
    trained = Trained(
        file.absolute(),
        stamp,
        experiment,
        classes,
        *kind_of_backbone(model),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        as_stored=config is None and not overrides,
    )
    runtime = TorchRuntime(
        model if as_trained else make_lean(to_deploy(model)),
        postprocessor,
        classes,
        experiment.eval_spatial_size,
        chosen,
        keep_ratio=experiment.keep_ratio,
        compiled=compiled,
    )
    return runtime, trained
