"""Whatever a person calls a picture reaches the runtime as the same pixels, or is refused with a reason."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.deploy.detector import Detector
from src.structures import ClassNames, Detections

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)


class Echo:
    """Keeps what it is given, and finds one box as large as the picture with the mean grey as its score."""

    classes = ClassNames(("x",), (4,))
    input_hw = (32, 48)
    keep_ratio = False

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        self.batches.append(images)
        height, width = sizes_hw.float().unbind(1)
        boxes = torch.stack((0 * width, 0 * height, width, height), -1)[:, None]
        return Detections(torch.zeros(len(images), 1).long(), boxes, images.mean((1, 2, 3))[:, None])

    @property
    def images(self) -> Tensor:
        return torch.cat(self.batches)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    (made / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.bmp", "deeper/c.png", "[1].png"):
        Image.fromarray(PIXELS).save(made / name)
    (made / "notes.txt").write_text("no picture")
    return made


def test_every_form_of_a_picture_is_the_same_to_the_model(echo: Echo, folder: Path) -> None:
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    forms = [
        folder / "b.png",
        str(folder / "a.bmp"),
        Image.fromarray(PIXELS),
        PIXELS,
        np.asfortranarray(PIXELS),
        tensor,
        tensor.float() / 255,
        (tensor.double() / 255).requires_grad_(),
        Image.fromarray(np.dstack((PIXELS, PIXELS[..., 0]))),  # transparency is dropped
        np.dstack((PIXELS, PIXELS[..., 0])),
    ]
    results = Detector(echo)(forms, 0.0, batch_size=4)
    assert [len(batch) for batch in echo.batches] == [4, 4, 2]
    for image, result in zip(echo.images, results, strict=True):
        assert torch.equal(image, echo.images[0])
        assert result.boxes.tolist() == [[0, 0, 34, 21]]
        assert np.array_equal(np.asarray(result.picture or PIXELS), PIXELS)
    assert [one.name for one in results][:4] == ["b.png", "a.bmp", "picture 3", "picture 4"]
    assert [one.path is None for one in results] == [False] * 2 + [True] * 8


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_pictures_of_8_and_16_bits(echo: Echo, tmp_path: Path, bits: int) -> None:
    grey = PIXELS[..., 0]
    stored = grey if bits == 8 else grey.astype(np.uint16) * 257
    Image.fromarray(stored).save(tmp_path / "grey.png")
    Detector(echo)([tmp_path / "grey.png", Image.fromarray(stored), stored, np.dstack((grey,) * 3)])
    assert all(torch.equal(image, echo.images[3]) for image in echo.images)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_turned_picture_is_taken_as_stored_and_this_is_said_once(
    echo: Echo, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        results = Detector(echo)([tmp_path / f"a.{suffix}", opened, tmp_path / f"a.{suffix}"], 0.0)
    assert caplog.text.count("is stored turned (EXIF), and taken as stored") == 1
    for result in results:
        assert result.size_hw == (21, 34)
        assert result.plot().size == (34, 21)
    assert torch.equal(echo.images[0], echo.images[1])


def test_nothing_gives_nothing_and_one_pixel_is_a_picture(echo: Echo) -> None:
    assert Detector(echo)([]) == []
    assert echo.batches == []
    (found,) = Detector(echo)(Image.new("RGB", (1, 1), "white"))
    assert found.boxes.tolist() == [[0, 0, 1, 1]]
    assert found.scores.tolist() == [1.0]


def test_folders_and_patterns_stand_for_their_pictures(echo: Echo, folder: Path) -> None:
    def names(source: object) -> list[str]:
        return [one.name for one in Detector(echo)(source)]

    assert names(folder) == names(str(folder)) == ["[1].png", "a.bmp", "b.png"]
    assert names(f"{folder}/*.png") == ["[1].png", "b.png"]
    assert names(f"{folder}/**/*.png") == ["[1].png", "b.png", "c.png"]
    assert names([folder / "deeper", f"{folder}/a*"]) == ["c.png", "a.bmp"]
    assert names(folder / "[1].png") == ["[1].png"]  # a file of that name is no pattern
    assert names(f"{folder}/*") == ["[1].png", "a.bmp", "b.png"]


@pytest.mark.parametrize(
    "address", ["http://x.org/a.jpg", "https://x.org/a.jpg", "rtsp://cam", "file:/a.png"]
)
def test_addresses_are_refused(echo: Echo, address: str) -> None:
    with pytest.raises(ValueError, match="addresses are not fetched"):
        Detector(echo)(address)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.jpg", r"absent\.jpg: no such picture or folder"),
        ("absent.mp4", r"absent\.mp4: no such picture or folder"),
        ("absent*.jpg", r"absent\*\.jpg: no picture or video has a name like this"),
        (None, "None came as a picture"),
        (True, "True came as a picture"),
        (-1, "-1 came as a picture"),
        ({"a": 1}, "a dict came as a picture"),
        (PIXELS.astype(np.float32), r"picture 1 is an array of shape \[21, 34, 3\] and type float32"),
        (PIXELS[None], r"shape \[1, 21, 34, 3\]"),
        (PIXELS.transpose(2, 0, 1), r"shape \[3, 21, 34\]"),
        (PIXELS[:0], r"shape \[0, 34, 3\]"),
        (torch.zeros(21, 34, 3), r"picture 1 is a tensor of shape \[21, 34, 3\]"),
        (torch.zeros(2, 3, 4, 4), "a batch as a list of these"),
        (torch.full((3, 4, 4), 255.0), r"from 255 to 255; RGB in \[0, 1\]"),
        (torch.full((3, 4, 4), -0.1), "from -0.1"),
        (torch.full((3, 4, 4), float("nan")), "from nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "torch.int64"),
        (Image.new("F", (4, 4)), "stores 32-bit values"),
    ],
)
def test_what_is_no_picture_is_refused(echo: Echo, source: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(echo)(source)


def test_a_folder_without_pictures_is_told(echo: Echo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no picture in this folder; looked for files ending in \.bmp"):
        Detector(echo)(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_they_are_decoded(echo: Echo, tmp_path: Path) -> None:
    Image.new("1", (10000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"10000x9000 pixels, more than the 89,000,000"):
        Detector(echo)(tmp_path / "bomb.png")
    with Image.open(tmp_path / "bomb.png") as opened:
        with pytest.raises(ValueError, match="picture 1 has 10000x9000 pixels"):
            Detector(echo)(opened)


def test_a_truncated_picture_is_named(echo: Echo, folder: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b\.png cannot be decoded"):
        Detector(echo)(folder)
    with Image.open(folder / "b.png") as opened:
        with pytest.raises(ValueError, match="picture 2 cannot be decoded"):
            Detector(echo)([PIXELS, opened])
    with Image.open(folder / "a.bmp") as opened:
        pass
    with pytest.raises(ValueError, match="picture 1 cannot be decoded"):
        Detector(echo)(opened)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"batch_size": 0}, "batch size 0"),
        ({"slice_px": 0}, "slices of 0 pixels"),
        ({"slice_px": 640, "overlap": 1.0}, "overlap 1.0"),
    ],
)
def test_settings_out_of_range_are_told_at_once(echo: Echo, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(echo).stream(PIXELS, **settings)


def test_a_stream_decodes_as_it_goes_and_a_list_keeps_no_pictures_of_files(echo: Echo, folder: Path) -> None:
    stream = Detector(echo).stream([folder / "b.png", folder / "notes.txt"])
    assert next(stream).picture is not None
    with pytest.raises(ValueError, match=r"notes\.txt"):
        next(stream)
    found = Detector(echo)([folder / "b.png", PIXELS])
    assert [one.picture is None for one in found] == [True, False]
    assert found[0].plot().size == (34, 21)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("cv2", reason="pip install -r requirements-video.txt")
    from src.deploy.video import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4", 12.0) as writer:
        for level in range(5):
            writer.add(Image.new("RGB", (65, 49), (50 * level, 0, 0)))
    return tmp_path / "clip.mp4"


def test_a_video_gives_frames_one_batch_at_a_time(echo: Echo, clip: Path) -> None:
    found = Detector(echo)(clip, 0.0, batch_size=2)
    assert isinstance(found, Iterator)
    first = next(found)
    assert len(echo.batches) == 1
    results = [first, *found]
    assert [len(batch) for batch in echo.batches] == [2, 2, 1]
    assert [(one.name, one.path, one.frame) for one in results] == [
        ("clip.mp4", clip, number) for number in range(1, 6)
    ]
    assert {one.size_hw for one in results} == {(48, 64)}  # the codec holds even sizes
    red = [float(image[0].mean()) * 255 for image in echo.images]
    assert max(abs(value - 50 * level) for level, value in enumerate(red)) < 8  # RGB, not BGR
    assert float(echo.images[:, 1:].max()) < 0.1


def test_pictures_and_videos_can_come_in_one_list(echo: Echo, clip: Path) -> None:
    found = list(Detector(echo)([PIXELS, str(clip)]))
    assert [(one.name, one.frame) for one in found][:2] == [("picture 1", None), ("clip.mp4", 1)]


def test_a_video_that_cannot_be_read_is_told(echo: Echo, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="pip install -r requirements-video.txt")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"broken\.mp4: OpenCV cannot open it"):
        list(Detector(echo)(tmp_path / "broken.mp4"))
    with pytest.raises(ValueError, match="camera 97: OpenCV cannot open it"):
        list(Detector(echo)(97))


def test_a_video_of_which_frames_are_missing_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2", reason="pip install -r requirements-video.txt")
    from src.deploy import video

    monkeypatch.setattr(video, "video_facts", lambda _: video.VideoFacts(12.0, 1))
    with pytest.raises(ValueError, match=r"clip\.mp4: not all frames could be written"):
        with video.VideoWriter(tmp_path / "clip.mp4", 12.0) as writer:
            writer.add(Image.new("RGB", (64, 48)))
            writer.add(Image.new("RGB", (32, 48)))


def test_without_the_package_a_video_says_what_to_install(
    echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(
        ValueError, match=r"'cv2' is not installed; run: pip install -r requirements-video\.txt"
    ):
        list(Detector(echo)(tmp_path / "a.mp4"))
