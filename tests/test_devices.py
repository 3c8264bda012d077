import inspect

import pytest
import torch

from questlib import devices
from questlib.devices import pick_device, pick_devices, pick_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_device_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device() == CPU
    assert pick_devices() == [CPU]


def test_device_is_the_first_gpu_that_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ones, asked = torch.ones, []

    def probe(*shape: int, device: torch.device) -> torch.Tensor:
        asked.append(device.index)
        if device.index == 0:
            raise RuntimeError("no kernel image is available for execution on the device")
        return ones(*shape) * (0 if device.index == 1 else 1)  # the second one computes nonsense

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "ones", probe)
    assert pick_device() == torch.device("cuda", 2)
    assert asked == [0, 1, 2]
    assert "GPU 0 does not compute and is left out: no kernel image" in caplog.text
    assert pick_devices() == [torch.device("cuda", 2), torch.device("cuda", 3)]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("requested", "device", "capability", "cpu_has_bf16", "expected"),
    [
        ("auto", GPU, (7, 5), True, "fp16"),  # T4
        ("auto", GPU, (8, 0), False, "bf16"),
        ("auto", GPU, (9, 0), False, "bf16"),
        ("auto", CPU, None, True, "bf16"),
        ("auto", CPU, None, False, "fp32"),
        ("fp32", GPU, (9, 0), True, "fp32"),
        ("fp16", GPU, (9, 0), True, "fp16"),
        ("bf16", GPU, (7, 5), True, "bf16"),
        ("bf16", CPU, None, False, "bf16"),
        ("fp32", CPU, None, True, "fp32"),
        ("fp16", CPU, None, True, "bf16"),
        ("fp16", CPU, None, False, "fp32"),
    ],
)
def test_precision_is_what_the_device_does(
    monkeypatch: pytest.MonkeyPatch,
    requested: str,
    device: torch.device,
    capability: tuple[int, int] | None,
    cpu_has_bf16: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: cpu_has_bf16)
    assert pick_precision(requested, device) == expected


def test_precision_that_a_cpu_cannot_train_in_is_replaced_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    pick_precision("fp16", CPU)
    assert caplog.messages == ["fp16 was asked for, but a CPU cannot train in it: fp32 is used"]


def test_precision_that_is_unknown_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown precision: 'bf61' \(did you mean 'bf16'\?\); known: auto, bf16, fp16, fp32"
    ):
        pick_precision("bf61", CPU)


@pytest.mark.parametrize(("half", "full", "expected"), [(1.0, 2.0, True), (1.0, 1.1, False), (5.0, 1.0, False)])
def test_cpu_has_a_format_when_it_is_clearly_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, half: float, full: float, expected: bool
) -> None:
    monkeypatch.setattr(devices, "_product_seconds", {torch.bfloat16: half, torch.float32: full}.__getitem__)
    assert inspect.unwrap(devices._cpu_has_bf16)() is expected


def test_precision_of_this_cpu_is_found_by_a_real_product() -> None:
    assert pick_precision("auto", CPU) in ("bf16", "fp32")
    assert devices._product_seconds(torch.float32) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_device_of_this_machine_computes() -> None:
    device = pick_device()
    assert device.type == "cuda"
    assert pick_precision("auto", device) in ("bf16", "fp16")
