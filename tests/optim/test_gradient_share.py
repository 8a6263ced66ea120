"""The weight that follows a share of gradients, worked out by hand."""

import pytest
import torch

from src.optim.gradient_share import SteeredWeight, gradient_share, steered_weight

CPU = torch.device("cpu")


def steered(weight: float, share: float) -> float:
    return steered_weight(weight, share, aim=0.11, tolerance=0.01)


def test_a_share_is_one_of_absolute_values() -> None:
    part, rest = [torch.tensor([1.0, -2.0]), torch.tensor([[-3.0]])], [torch.tensor([-18.0])]
    assert gradient_share(part, rest).item() == pytest.approx(6 / 24)
    assert gradient_share(part, []).item() == 1.0
    assert torch.isnan(gradient_share([torch.tensor([float("nan")])], rest))


@pytest.mark.parametrize("share", [0.1, 0.11, 0.12])
def test_inside_the_range_nothing_changes(share: float) -> None:
    assert steered(5.0, share) == 5.0


def test_a_low_share_aims_at_the_upper_end_and_a_high_one_at_the_lower() -> None:
    # 0.05 -> 0.12: odds 5 / 95 and 12 / 88
    assert steered(5.0, 0.05) == pytest.approx(5.0 * (12 / 88) / (5 / 95))
    assert steered(5.0, 0.2) == pytest.approx(5.0 * (10 / 90) / (20 / 80))


def test_where_the_rest_stays_the_new_weight_gives_the_share_it_aims_at() -> None:
    def share_under(weight: float) -> float:  # a part whose gradient is the weight's alone
        return 0.3 * weight / (0.3 * weight + 40.0)

    assert share_under(5.0) < 0.1
    assert share_under(steered(5.0, share_under(5.0))) == pytest.approx(0.12)
    assert share_under(60.0) > 0.12
    assert share_under(steered(60.0, share_under(60.0))) == pytest.approx(0.1)


@pytest.mark.parametrize(("share", "factor"), [(0.0, 10.0), (1e-9, 10.0), (0.999, 0.1), (1.0, 0.1)])
def test_it_changes_at_most_tenfold(share: float, factor: float) -> None:
    assert steered(5.0, share) == pytest.approx(5.0 * factor)


def make_weight(**changes: float | None) -> SteeredWeight:
    knobs: dict[str, float | None] = {"restart_weight": 20.0, "aim": 0.11, "tolerance": 0.01, **changes}
    return SteeredWeight(5.0, **knobs)


def test_the_weight_follows_an_epoch_s_mean_and_then_forgets_it() -> None:
    weight = make_weight()
    for share in (0.02, 0.08):
        weight.add(torch.tensor(share))
        assert weight.weight == 5.0
    mean = weight.mean_share()
    assert mean is not None and mean.item() == pytest.approx(0.05)
    weight.end_epoch(float(mean))
    assert weight.weight == pytest.approx(steered(5.0, 0.05))
    assert weight.mean_share() is None


def test_without_an_aim_it_stays() -> None:
    weight = make_weight(aim=None)
    weight.end_epoch(0.9)
    assert weight.weight == 5.0


@pytest.mark.parametrize(("restart_weight", "wanted"), [(20.0, 20.0), (None, 5.0)])
def test_from_the_restart_on_it_is_held(restart_weight: float | None, wanted: float) -> None:
    weight = make_weight(restart_weight=restart_weight)
    weight.end_epoch(0.5)
    assert weight.weight != 5.0
    weight.restart()
    weight.end_epoch(0.5)
    assert weight.weight == wanted


def test_it_goes_on_from_its_state_in_the_middle_of_an_epoch() -> None:
    shares = [torch.tensor(s) for s in (0.031, 0.052, 0.047, 0.013)]
    whole, cut, resumed = make_weight(), make_weight(), make_weight()
    for share in shares:
        whole.add(share)
    for share in shares[:2]:
        cut.add(share)
    resumed.load_state_dict(cut.state_dict(), CPU)
    for share in shares[2:]:
        resumed.add(share)
    for weight in (whole, resumed):
        mean = weight.mean_share()
        assert mean is not None
        weight.end_epoch(float(mean))
    assert resumed.state_dict() == whole.state_dict()
    whole.restart()
    resumed.load_state_dict(whole.state_dict(), CPU)
    resumed.end_epoch(0.5)
    assert resumed.weight == 20.0


def test_an_aim_that_no_weight_reaches_does_not_raise_it_for_ever() -> None:
    weight = make_weight()
    for _ in range(20):
        assert not weight.at_its_most or weight.weight == 50.0
        weight.end_epoch(0.03 * weight.weight / (weight.weight + 1))  # 3 % at most
    assert weight.weight == 50.0 and weight.at_its_most
    weight.end_epoch(0.5)
    assert weight.weight < 50.0 and not weight.at_its_most
    weight.restart()
    assert not weight.at_its_most
