"""A frozen DINOv3 ViT that gives the tokens of pictures.

Legend: B batch, N patches of a picture, D embedding width, H and W the picture's sides.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from ..nn.backbone.vit import ViTShape, build_vit, image_statistics
from ..ops.padding import pad_to_multiple
from .feature_store import PATCH, Dtype, FeatureKind
from .feature_writer import FeatureWriter
from .pictures import Picture, to_batch

_log = logging.getLogger(__name__)

ModelType = Literal["vit_small", "vit_base", "vit_large", "vit_giant2"]
MODEL_NAMES = {
    "vit_small": "dinov3_small",
    "vit_base": "dinov3_base",
    "vit_large": "dinov3_large",
    "vit_giant2": "dinov3_huge_plus",
}

__all__ = ["MODEL_NAMES", "PATCH", "DinoV3Teacher", "ModelType"]


class DinoV3Teacher(nn.Module):
    """A DINOv3 ViT that never learns: no gradients, evaluation mode always.

    The constructor builds with random weights; `load_weights` (in `loading.py`) fills it, and `load_teacher`
    does both.

    Args:
        shape: Departures from the named model's size, which no released weights fit; for tests.
        model_type: Which ViT. There is no giant DINOv3: `vit_giant2` means ViT-H+/16, the largest one that
            was distilled.
        checkpoint_path: File for `load_weights`; without one it asks timm's hub.
        extract_cls_token: Whether the class token is given.
        extract_patch_tokens: Whether the patch tokens are given.
        device: Where it computes ("cpu", "cuda", "cuda:1"); None leaves it where it is built, on the CPU.
        feature_output_dir: Folder that `extract_features` saves in, and readers read from.

    Raises:
        ValueError: An unknown model type, nothing to extract, or a device that is not there.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        shape: ViTShape = ViTShape(),  # noqa: B008 (a NamedTuple cannot change)
        *,
        model_type: ModelType = "vit_small",
        checkpoint_path: str | None = None,
        extract_cls_token: bool = True,
        extract_patch_tokens: bool = True,
        device: str | None = None,
        feature_output_dir: str | None = None,
    ) -> None:
        super().__init__()
        if model_type not in MODEL_NAMES:
            allowed = ", ".join(get_args(ModelType))
            raise ValueError(f"DinoV3Teacher.model_type: {model_type!r} is not known; allowed: {allowed}.")
        if not (extract_cls_token or extract_patch_tokens):
            raise ValueError(
                "DinoV3Teacher: extract_cls_token and extract_patch_tokens are both False, so that nothing "
                "is left to extract; set one of them to True."
            )
        if model_type == "vit_giant2":
            _log.warning("there is no giant DINOv3: model_type vit_giant2 means ViT-H+/16 (840 M parameters)")
        self.model_type = model_type
        self.checkpoint_path = checkpoint_path
        self.extract_cls_token = extract_cls_token
        self.extract_patch_tokens = extract_patch_tokens
        self.feature_output_dir = feature_output_dir
        self._writer: FeatureWriter | None = None
        self.vit: Eva = build_vit(MODEL_NAMES[model_type], shape)
        for name, values in zip(("image_mean", "image_std"), image_statistics(self.vit), strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.train(False)
        if device is not None:
            self.to(_checked_device(device))

    def train(self, mode: bool = True) -> "DinoV3Teacher":  # noqa: ARG002 (torch's signature)
        """Evaluation mode, whatever is asked: dropping paths or rescaling positions has no place here."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The tokens of a batch, after the final norm.

        Args:
            images: [B, 3, H, W] floating RGB in [0, 1], of any size, on the teacher's device. They are
                normalised here, and padded to a multiple of 16 by repeating the last row and column.

        Returns:
            `cls_token` [B, D] and `patch_tokens` [B, N, D], or the one of them that was asked for;
            N = ceil(H / 16) * ceil(W / 16), row by row.

        Raises:
            ValueError: The pictures are not [B, 3, H, W] or not floating.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                "DinoV3Teacher takes pictures [B, 3, H, W] as floats in [0, 1], but these are "
                f"{tuple(images.shape)}, {images.dtype}."
            )
        normalised = (images.to(self.image_mean.dtype) - self.image_mean) / self.image_std
        padded, _ = pad_to_multiple(normalised, PATCH)
        tokens = self.vit.forward_features(padded)
        features = {"cls_token": tokens[:, 0], "patch_tokens": tokens[:, self.vit.num_prefix_tokens :]}
        return {name: features[name] for name in self.get_feature_types()}

    def extract_features(
        self,
        images: Picture | Sequence[Picture],
        image_ids: Sequence[int | str] | None = None,
        save_features: bool = False,
        file_names: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The tokens of pictures in any form, on the teacher's device.

        Args:
            images: What `to_batch` (in `pictures.py`) takes: PIL pictures, arrays, tensors, or lists of them.
            image_ids: What to call the pictures in `feature_output_dir`; needed to save them.
            save_features: Add those that are not there yet to `feature_output_dir`, as float16. For many
                pictures `tools/extract_features.py` is faster, and goes on after an interruption.
            file_names: The pictures' files as the annotations have them; None where the ids are these names.
                Training refuses features of other files.

        Returns:
            As `forward`.

        Raises:
            ValueError: What are no pictures, ids that are not as many, or features that cannot be saved.
        """
        batch = to_batch(images).to(self.image_mean.device)
        for what, given in (("image_ids", image_ids), ("file_names", file_names)):
            if given is not None and len(given) != len(batch):
                raise ValueError(f"{len(given)} {what} for {len(batch)} pictures; give each one its own.")
        features = self(batch)
        if save_features:
            self._save(features, image_ids, file_names, (batch.shape[-2], batch.shape[-1]))
        return features  # type: ignore[no-any-return]  # torch's modules are untyped when called

    def _save(
        self,
        features: dict[str, Tensor],
        image_ids: Sequence[int | str] | None,
        file_names: Sequence[str] | None,
        size_hw: tuple[int, int],
    ) -> None:
        if image_ids is None or self.feature_output_dir is None:
            lacking = "image_ids" if image_ids is None else "feature_output_dir, a key of the teacher's YAML"
            raise ValueError(
                f"save_features needs {lacking}: what to call the features, and where to put them."
            )
        kind = self.feature_kind(size_hw, "float16")
        if self._writer is None or self._writer.kind != kind:
            self._writer = FeatureWriter(Path(self.feature_output_dir), kind)
        names = list(file_names or map(str, image_ids))
        if new := self._writer.lacking(image_ids, names):
            new_features = {name: values[new] for name, values in features.items()}
            self._writer.write([image_ids[i] for i in new], [names[i] for i in new], new_features)

    def feature_kind(self, size_hw: tuple[int, int], dtype: Dtype) -> FeatureKind:
        """What the features of pictures of this size have in common when they are saved as `dtype`."""
        return FeatureKind(self.model_type, self.model_hash(), size_hw, dtype, self.get_feature_dims())

    def get_feature_types(self) -> list[str]:
        """What `forward` gives, by name."""
        asked = {"cls_token": self.extract_cls_token, "patch_tokens": self.extract_patch_tokens}
        return [name for name, wanted in asked.items() if wanted]

    def get_feature_dims(self) -> dict[str, int]:
        """D of each feature."""
        return dict.fromkeys(self.get_feature_types(), self.vit.embed_dim)

    def get_feature_strides(self) -> dict[str, int]:
        """Pixels of the picture for each token along each side; the class token, of the whole, has none."""
        return {name: PATCH for name in self.get_feature_types() if name == "patch_tokens"}

    def get_model_info(self) -> dict[str, Any]:
        """What the ViT is, with `model_hash`, which tells apart any two sets of weights."""
        return {
            "model_type": self.model_type,
            "model_name": MODEL_NAMES[self.model_type],
            "embed_dim": self.vit.embed_dim,
            "depth": len(self.vit.blocks),
            "num_heads": cast(Any, self.vit.blocks[0]).attn.num_heads,
            "patch_size": PATCH,
            "num_register_tokens": self.vit.num_prefix_tokens - 1,
            "num_parameters": sum(parameter.numel() for parameter in self.vit.parameters()),
            "image_mean": tuple(self.image_mean.flatten().tolist()),
            "image_std": tuple(self.image_std.flatten().tolist()),
            "checkpoint_path": self.checkpoint_path,
            "model_hash": self.model_hash(),
        }

    def model_hash(self) -> str:
        """16 hexadecimal digits that stand for the weights and all else that decides the features.

        They do not depend on the file that they came from, nor on the device.
        """
        heads = cast(Any, self.vit.blocks[0]).attn.num_heads
        digest = hashlib.sha256(f"{MODEL_NAMES[self.model_type]} {heads}".encode())
        for name, value in sorted(
            {**self.vit.state_dict(), **dict(self.named_buffers(recurse=False))}.items()
        ):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


def _checked_device(device: str) -> torch.device:
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise ValueError(
            f"DinoV3Teacher.device: {device!r} is not known; cpu, cuda and cuda:N are allowed, or null."
        )
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"DinoV3Teacher.device: {device} is not there, torch sees {torch.cuda.device_count()} GPUs; "
            "give cpu, or null."
        )
    return chosen
