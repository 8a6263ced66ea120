"""Detectors of the package `transformers` that ours are compared with."""

import torch
from torch import nn

from src.deploy.extras import require


def d_fine_large(ours: nn.Module) -> nn.Module:
    """The D-FINE-L of transformers in eval mode, with the weights of `ours`."""
    transformers = require("transformers")
    from tests.nn.transformers_names import give_weights

    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 32, 48],
        stage_in_channels=[48, 128, 512, 1024],
        stage_mid_channels=[48, 96, 192, 384],
        stage_out_channels=[128, 512, 1024, 2048],
        hidden_sizes=[128, 512, 1024, 2048],
        stage_num_blocks=[1, 1, 3, 1],
        stage_numb_of_layers=[6, 6, 6, 6],
        out_indices=[2, 3, 4],
        use_learnable_affine_block=False,
    )
    config = transformers.DFineConfig(
        backbone_config=backbone,
        num_labels=80,
        encoder_in_channels=[512, 1024, 2048],
        decoder_n_points=[3, 6, 3],
        decoder_layers=6,
    )
    theirs = transformers.DFineForObjectDetection(config).eval()
    with torch.no_grad():
        give_weights(ours, theirs)
    return theirs


def deimv2_large() -> nn.Module:
    """The DEIMv2-L of transformers in eval mode, with 32.6 million random parameters; its ViT is ours."""
    transformers = require("transformers")
    width = 224
    vit = transformers.DINOv3ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        num_register_tokens=4,
        out_indices=[6, 9, 12],
    )
    config = transformers.Deimv2Config(
        backbone_config=vit,
        num_labels=80,
        encoder_in_channels=[width] * 3,
        encoder_hidden_dim=width,
        encoder_ffn_dim=896,
        encoder_has_trailing_conv=False,
        d_model=width,
        decoder_in_channels=[width] * 3,
        decoder_ffn_dim=1792,
        decoder_layers=4,
        decoder_n_points=[3, 6, 3],
        spatial_tuning_adapter_inplanes=32,
    )
    return transformers.Deimv2ForObjectDetection(config).eval()
