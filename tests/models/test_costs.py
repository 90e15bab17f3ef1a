import pytest

from vovnet.lab import count_models
from vovnet.models import list_models
from vovnet.models.costs import listed_costs
from vovnet.shipped import SHIPPED


def counted(name):
    [row] = count_models([name])
    return row["params"], row["macs"], row["imgsz"]


def test_every_listed_name_has_its_cost():
    assert list(listed_costs()) == [*list_models(), *SHIPPED]


@pytest.mark.parametrize(
    "name",
    [
        *("vovdet_nano", "vovdet_small", "vovdet_nano.voc", "ese_vovnet19b_dw", "vovnet39"),
        *("vovnet27_slim_bottleneck", "shufflenet_v2_x0_5"),
        *("fasterrcnn-vovnet19_slim", "maskrcnn_lite-vovnet19_slim_dw"),
    ],
)
def test_costs_are_what_is_counted(name):
    assert listed_costs()[name] == counted(name)


@pytest.mark.slow
def test_all_costs_are_what_is_counted():
    assert {name: counted(name) for name in listed_costs()} == listed_costs()
