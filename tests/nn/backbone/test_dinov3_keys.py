import re

import pytest
import torch
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor

from src.nn.backbone.dinov3_keys import convert_to_timm
from src.nn.backbone.vit import ViTShape, build_vit

State = dict[str, Tensor]
SMALL = ViTShape(embed_dim=48, depth=2, num_heads=3)
PLAIN, BIASED, GATED = "dinov3_small", "vit_small_patch16_dinov3_qkvb", "dinov3_small_plus"


def timm_state(name: str = PLAIN) -> State:
    generator = torch.Generator().manual_seed(5)
    state = build_vit(name, SMALL).state_dict()
    return {key: torch.randn(value.shape, generator=generator) for key, value in state.items()}


def substituted(key: str, names: list[tuple[str, str]]) -> str:
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key


def official(state: State) -> State:
    """The same weights as Meta's code would save them."""
    names = [
        (r"^reg_token$", "storage_tokens"),
        (r"^rope\.", "rope_embed."),
        (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.fc1_g\.", ".w1."),
        (r"\.fc1_x\.", ".w2."),
    ]
    if any("fc1_g" in key for key in state):
        names.append((r"\.fc2\.", ".w3."))
    renamed = {}
    for key, value in state.items():
        renamed[substituted(key, names)] = value
    for key in [key for key in state if key.endswith("attn.qkv.weight")]:
        stem = key[: -len("qkv.weight")]
        parts = [renamed.pop(f"{stem}{part}_bias", torch.zeros(48)) for part in "qv"]
        renamed[f"{stem}qkv.bias"] = torch.cat((parts[0], torch.full((48,), 7.0), parts[1]))
        renamed[f"{stem}qkv.bias_mask"] = torch.cat((torch.ones(48), torch.zeros(48), torch.ones(48)))
    return {**renamed, "mask_token": torch.randn(1, 48)}


def hugging_face(state: State, layer: str) -> State:
    """The same weights as transformers would save them; it keeps no rotary periods."""
    gated = any("fc1_g" in key for key in state)
    names = [
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^reg_token$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.attn\.([qv])_bias$", r".attention.\1_proj.bias"),
        (r"\.gamma_([12])$", r".layer_scale\1.lambda1"),
        (r"\.fc1_g\.", ".gate_proj."),
        (r"\.fc1_x\.", ".up_proj."),
        (r"\.fc1\.", ".up_proj."),
        (r"\.fc2\.", ".down_proj."),
        (r"^blocks\.", layer),
    ]
    assert gated or not any("fc1_x" in key for key in state)
    renamed = {}
    for key, value in state.items():
        if key == "rope.periods":
            continue
        if key.endswith("attn.qkv.weight"):
            for part, weight in zip("qkv", value.chunk(3), strict=True):
                new = substituted(key, names).replace("attn.qkv", f"attention.{part}_proj")
                renamed[new] = weight
        else:
            renamed[substituted(key, names)] = value
    return {**renamed, "embeddings.mask_token": torch.randn(1, 1, 48)}


def same(given: State, expected: State) -> bool:
    return given.keys() == expected.keys() and all(torch.equal(given[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", [PLAIN, BIASED, GATED])
@pytest.mark.parametrize("prefix", ["", "backbone.dinov3.", "module.backbone.vit."])
@pytest.mark.parametrize("style", ["official", "timm", "layer.", "model.layer."])
def test_every_style_gives_timms_names(name: str, prefix: str, style: str) -> None:
    expected = timm_state(name)
    makers = {"official": official, "timm": dict}
    state = makers[style](expected) if style in makers else hugging_face(expected, style)
    state = {f"{prefix}{key}": value for key, value in state.items()}
    if prefix:
        state["decoder.layers.0.weight"] = torch.ones(3)
    vit = build_vit(name, SMALL)
    if "layer" in style:
        expected["rope.periods"] = vit.rope.periods.to(torch.bfloat16).float()
    given = convert_to_timm(state, vit, full_depth=2)
    assert same(given, expected)
    vit.load_state_dict(given)


@pytest.mark.parametrize("name", [PLAIN, BIASED, GATED])
def test_agrees_with_timms_own_converter(name: str) -> None:
    vit = build_vit(name, SMALL)
    state = official(timm_state(name))
    for key in [key for key in state if key.endswith("bias") and name != BIASED and "qkv" in key]:
        state[key] = torch.zeros(144)
    given = convert_to_timm(state, vit, full_depth=2)
    assert torch.equal(given.pop("rope.periods"), state["rope_embed.periods"])
    assert same(given, checkpoint_filter_fn(dict(state), vit))


def test_nan_masks_mean_what_meta_would_have_initialised() -> None:
    state = official(timm_state(BIASED))
    expected = convert_to_timm(state, build_vit(BIASED, SMALL), full_depth=2)
    for key in [key for key in state if key.endswith("bias_mask")]:
        state[key] = torch.full((144,), float("nan"))
    assert same(convert_to_timm(state, build_vit(BIASED, SMALL), full_depth=2), expected)


def test_released_masks_are_zero_and_take_the_bias_away() -> None:
    state = official(timm_state(BIASED))
    for key in [key for key in state if key.endswith("bias_mask")]:
        state[key] = torch.zeros(144)
    given = convert_to_timm(state, build_vit(BIASED, SMALL), full_depth=2)
    assert not given["blocks.1.attn.q_bias"].any() and not given["blocks.1.attn.v_bias"].any()
    convert_to_timm(state, build_vit(PLAIN, SMALL), full_depth=2)


def test_trained_biases_are_never_dropped_in_silence() -> None:
    with pytest.raises(ValueError, match="_qkvb"):
        convert_to_timm(official(timm_state(BIASED)), build_vit(PLAIN, SMALL), full_depth=2)
    with pytest.raises(ValueError, match="_qkvb"):
        convert_to_timm(timm_state(BIASED), build_vit(PLAIN, SMALL), full_depth=2)
    state = {**timm_state(BIASED), "blocks.0.attn.k_bias": torch.ones(48)}
    with pytest.raises(ValueError, match="no key bias"):
        convert_to_timm(state, build_vit(BIASED, SMALL), full_depth=2)


def test_a_model_with_biases_takes_weights_without_them_as_zero() -> None:
    given = convert_to_timm(timm_state(PLAIN), build_vit(BIASED, SMALL), full_depth=2)
    assert torch.equal(given["blocks.0.attn.q_bias"], torch.zeros(48))


def test_blocks_that_the_model_leaves_out_are_left_out() -> None:
    vit = build_vit(PLAIN, SMALL)
    vit.blocks = vit.blocks[:1]
    given = convert_to_timm(official(timm_state(PLAIN)) | _zero_biases(), vit, full_depth=2)
    assert not any(key.startswith("blocks.1.") for key in given)
    vit.load_state_dict(given)


def _zero_biases() -> State:
    return {f"blocks.{index}.attn.qkv.bias": torch.zeros(144) for index in range(2)}


def test_tensors_without_a_part_in_maps_are_tolerated() -> None:
    extra = {
        "head.weight": torch.ones(1),
        "local_cls_norm.bias": torch.ones(1),
        "projectors.0": torch.ones(1),
    }
    given = convert_to_timm({**timm_state(), **extra}, build_vit(PLAIN, SMALL), full_depth=2)
    assert same(given, timm_state())


@pytest.mark.parametrize("state", [{}, {"conv1.weight": torch.ones(1)}])
def test_a_checkpoint_of_something_else(state: State) -> None:
    with pytest.raises(ValueError, match="no DINOv3 ViT"):
        convert_to_timm(state, build_vit(PLAIN, SMALL), full_depth=2)


def test_two_vits_in_one_checkpoint() -> None:
    state = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in timm_state().items()}
    with pytest.raises(ValueError, match="'student.', 'teacher.'"):
        convert_to_timm(state, build_vit(PLAIN, SMALL), full_depth=2)
