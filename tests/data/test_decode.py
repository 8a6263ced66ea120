import numpy as np
import pytest
from PIL import Image

from src.data import PictureError, decode, decode_rgb

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (16, 1))


def test_stored_pixels_come_back_as_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_rgb(tmp_path / "a.png", (16, 32))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "RGBA", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    black_and_white = np.where(RAMP > 127, 255, 0).astype(np.uint8)
    grey = black_and_white if mode == "1" else RAMP
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.fromarray(grey)
    (image.convert("RGB").convert(mode) if mode == "CMYK" else image.convert(mode)).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    values = np.asarray(decode_rgb(path)).astype(int)
    assert values.shape == (16, 32, 3)
    assert np.abs(values - grey[..., None]).mean() < 3


def test_16_bit_grey_keeps_its_shades(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png")
    values = np.asarray(decode_rgb(tmp_path / "a.png"))
    assert np.array_equal(values, np.repeat(RAMP[..., None], 3, -1))


def test_32_bit_values_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(PictureError, match="32-bit"):
        decode_rgb(tmp_path / "a.tiff")


def _save_turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_left_alone_where_the_stored_size_fits(tmp_path, orientation):
    _save_turned(tmp_path / "a.jpg", orientation)
    for size in (None, (16, 32)):
        values = np.asarray(decode_rgb(tmp_path / "a.jpg", size))[..., 0].astype(int)
        assert np.abs(values - RAMP).mean() < 3


def test_exif_is_applied_where_only_the_turned_size_fits(tmp_path):
    _save_turned(tmp_path / "a.jpg", 6)
    values = np.asarray(decode_rgb(tmp_path / "a.jpg", (32, 16)))[..., 0].astype(int)
    assert np.abs(values - np.rot90(RAMP, -1)).mean() < 3
    _save_turned(tmp_path / "b.jpg", 3)
    with pytest.raises(PictureError, match="is 32x16 .* say 16x32"):
        decode_rgb(tmp_path / "b.jpg", (32, 16))


def test_another_size_than_stated_names_both(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"a\.png is 32x16 .* say 30x16"):
        decode_rgb(tmp_path / "a.png", (16, 30))


def test_damaged_files_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(pixels).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(
            PictureError, match=rf"{name} (cannot be decoded|is none of).*(replace|restore)"
        ) as caught:
            decode_rgb(tmp_path / name)
        assert "\n" not in str(caught.value)
    for content in (b"", b"GIF89a", b"not a picture at all"):
        (tmp_path / "b.jpg").write_bytes(content)
        with pytest.raises(PictureError, match="b.jpg"):
            decode_rgb(tmp_path / "b.jpg")


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "no.jpg", tmp_path):
        with pytest.raises(PictureError, match="does not exist"):
            decode_rgb(path)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", 511)
    with pytest.raises(PictureError, match="32x16 pixels, more than the 511"):
        decode_rgb(tmp_path / "a.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", 512)
    assert decode_rgb(tmp_path / "a.png").size == (32, 16)
