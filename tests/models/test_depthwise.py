import pytest
import torch
from torch import nn

from mcss.models.depthwise import Depthwise, speed_up_depthwise


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "side"), [(3, 4), (5, 4), (5, 2), (5, 1)])
def test_gradients_are_those_of_the_plain_convolution(kernel: int, side: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=bias).double()
    net = nn.Sequential(nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=bias).double())
    net[0].load_state_dict(plain.state_dict())
    speed_up_depthwise(net)
    assert isinstance(net[0], Depthwise)
    images = torch.randn(3, 6, side, side, dtype=torch.float64)
    gradients = []
    for layer in (plain, net):
        x = images.clone().requires_grad_()
        found = layer(x)
        (found * torch.arange(found.numel()).view_as(found)).sum().backward()
        gradients.append((x.grad, *(parameter.grad for parameter in layer.parameters())))
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_mixed_precision_gives_nearly_the_same_gradients() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False))
    speed_up_depthwise(net)
    images = torch.randn(3, 6, 4, 4)
    gradients = []
    for mixed in (False, True):
        x = images.clone().requires_grad_()
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found = net(x)
        assert found.dtype == (torch.bfloat16 if mixed else torch.float32)
        found.float().square().sum().backward()
        gradients.append((x.grad, net[0].weight.grad))
    for single, half in zip(*gradients, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, single, rtol=0.05, atol=0.2)


def test_only_depthwise_layers_that_keep_the_size_are_changed() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False, stride=2),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
    )
    speed_up_depthwise(net)
    assert [type(layer) for layer in net] == [nn.Conv2d] * 3
