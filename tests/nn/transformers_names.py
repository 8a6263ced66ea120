"""D-FINE as the library `transformers` builds it: the same sizes as ours, and how its tensors are called."""

import re

import pytest

TRANSFORMERS_ONLY = re.compile(
    r"^(class_embed|bbox_embed)\."  # the decoder's heads by a second name
    r"|^model\.decoder\.(up|reg_scale)$"  # numbers of the configuration here
)

_ATTENTION_PARTS = {"q": 0, "k": 1, "v": 2}

# Their name (beginning, or a part of it) -> ours; each is applied where it fits, in this order.
_RENAMED = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        # backbone
        (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
        (r"^model\.backbone\.model\.encoder\.", "backbone."),
        (r"\.convolution\.", ".conv."),
        (r"\.normalization\.", ".bn."),
        # encoder
        (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
        (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
        (r"^model\.encoder\.aifi\.", "encoder.encoder."),
        (r"^(encoder\.encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
        (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.csp_rep1\.", r"encoder.\1.cv2.0."),
        (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.csp_rep2\.", r"encoder.\1.cv3.0."),
        (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv([23])\.", r"encoder.\1.cv\2.1."),
        (r"^model\.encoder\.((?:fpn|pan)_blocks\.\d+)\.conv([14])\.", r"encoder.\1.cv\2."),
        (r"^model\.encoder\.(downsample_convs\.\d+)\.conv([12])\.", r"encoder.\1.cv\2."),
        (r"^model\.encoder\.lateral_convs\.", "encoder.lateral_convs."),
        # decoder
        (r"^model\.(enc_output)\.0\.", r"decoder.\1.proj."),
        (r"^model\.(enc_output)\.1\.", r"decoder.\1.norm."),
        (r"^model\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
        (r"^model\.decoder\.class_embed\.", "decoder.dec_score_head."),
        (r"^model\.decoder\.bbox_embed\.", "decoder.dec_bbox_head."),
        (r"^model\.decoder\.", "decoder."),
        (r"^(decoder\.lqe_layers\.\d+)\.reg_conf\.", r"\1.mlp."),
        (r"\.encoder_attn\.", ".cross_attn."),
        (r"^(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
        # both kinds of transformer layers
        (r"\.self_attn_layer_norm\.", ".norm1."),
        (r"(\.layers\.\d+)\.mlp\.layers\.0\.", r"\1.linear1."),
        (r"(\.layers\.\d+)\.mlp\.layers\.1\.", r"\1.linear2."),
        (r"\.self_attn\.o_proj\.", ".self_attn.out_proj."),
    )
)


def our_name(theirs):
    """Our name of one of their tensors, and which third of it theirs is (None: all of it)."""
    attention = re.search(r"\.self_attn\.([qkv])_proj\.(weight|bias)$", theirs)
    part = None
    if attention:
        part = _ATTENTION_PARTS[attention[1]]
        theirs = f"{theirs[: attention.start()]}.self_attn.in_proj_{attention[2]}"
    for pattern, ours in _RENAMED:
        theirs = pattern.sub(ours, theirs)
    return theirs, part


def give_weights(ours, theirs):
    """Copy every tensor of our model into theirs; no tensor of either may be left over."""
    source, wanted, used = ours.state_dict(), theirs.state_dict(), set()
    for name, tensor in wanted.items():
        if TRANSFORMERS_ONLY.search(name):
            continue
        known_as, part = our_name(name)
        used.add(known_as)
        tensor.copy_(source[known_as] if part is None else source[known_as].chunk(3)[part])
    assert used == set(source)


_B0 = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
}
_SIZES = {
    "n": {
        "backbone": {**_B0, "out_indices": [3, 4]},
        "encoder_in_channels": [512, 1024],
        "encoder_hidden_dim": 128,
        "encoder_ffn_dim": 512,
        "encode_proj_layers": [1],
        "hidden_expansion": 0.34,
        "depth_mult": 0.5,
        "feat_strides": [16, 32],
        "num_feature_levels": 2,
        "decoder_in_channels": [128, 128],
        "d_model": 128,
        "decoder_ffn_dim": 512,
        "decoder_n_points": [6, 6],
        "decoder_layers": 3,
    },
    "s": {
        "backbone": {**_B0, "out_indices": [2, 3, 4]},
        "encoder_in_channels": [256, 512, 1024],
        "hidden_expansion": 0.5,
        "depth_mult": 0.34,
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 3,
    },
    "m": {
        "backbone": {
            "stem_channels": [3, 24, 32],
            "stage_in_channels": [32, 96, 384, 768],
            "stage_mid_channels": [32, 64, 128, 256],
            "stage_out_channels": [96, 384, 768, 1536],
            "stage_num_blocks": [1, 1, 3, 1],
            "stage_numb_of_layers": [4, 4, 4, 4],
            "out_indices": [2, 3, 4],
        },
        "encoder_in_channels": [384, 768, 1536],
        "depth_mult": 0.67,
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 4,
    },
}


def build_theirs(size, **changes):
    """Their detector for 80 classes, "n", "s" or "m", with random weights; nothing is read or fetched."""
    transformers = pytest.importorskip("transformers", minversion="5.23", reason="the peer is not installed")
    knobs = {**_SIZES[size], **changes}
    backbone = knobs.pop("backbone")
    config = transformers.DFineConfig(
        backbone_config=transformers.HGNetV2Config(
            hidden_sizes=backbone["stage_out_channels"], use_learnable_affine_block=True, **backbone
        ),
        num_labels=80,
        freeze_backbone_batch_norms=False,
        **knobs,
    )
    return transformers.DFineForObjectDetection(config)
