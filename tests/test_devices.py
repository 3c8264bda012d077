from pathlib import Path

import pytest
import torch

from questlib import devices
from questlib.devices import attention_of_any_shape, keep_precision, narrowed, pick_device, pick_devices, pick_precision

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
    launched = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
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


@pytest.mark.parametrize(("bf16", "amx"), [(True, False), (False, True), (False, False)])
def test_a_cpu_has_bf16_when_the_processor_says_so_however_busy_it_is(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, amx: bool
) -> None:
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(devices, "_cpu_has_bf16", devices._cpu_has_bf16.__wrapped__)
    assert pick_precision("auto", CPU) == ("bf16" if bf16 or amx else "fp32")


def test_precision_of_this_cpu_is_the_one_its_flags_name() -> None:
    path = Path("/proc/cpuinfo")
    if not path.is_file() or devices.platform.machine() != "x86_64":
        pytest.skip("there are no flags to read")
    flags = next(line for line in path.read_text().splitlines() if line.startswith("flags")).split()
    assert (pick_precision("auto", CPU) == "bf16") == bool({"avx512_bf16", "amx_tile"} & set(flags))


@pytest.mark.parametrize(
    ("trained", "device", "own", "expected"),
    [
        ("bf16", CPU, "bf16", "bf16"),
        ("bf16", CPU, "fp32", "fp32"),
        ("fp32", CPU, "bf16", "fp32"),
        ("fp16", CPU, "fp32", "fp32"),
        ("fp16", GPU, "bf16", "fp16"),
        ("bf16", GPU, "fp16", "fp16"),
        ("fp32", GPU, "fp16", "fp32"),
    ],
)
def test_what_was_trained_in_a_precision_predicts_in_it_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trained: str,
    device: torch.device,
    own: str,
    expected: str,
) -> None:
    monkeypatch.setattr(devices, "pick_precision", lambda *_: own)
    assert keep_precision(trained, device) == expected
    assert bool(caplog.messages) == (trained != expected)


def test_attention_on_a_gpu_plans_nothing_for_a_new_shape() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with attention_of_any_shape(GPU):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()  # takes a mask; flash does not
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    with attention_of_any_shape(CPU):  # whose threads share the switch
        assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_device_of_this_machine_computes() -> None:
    device = pick_device()
    assert device.type == "cuda"
    assert pick_precision("auto", device) in ("bf16", "fp16")


def test_weights_are_whole_again_after_an_interrupt_however_early_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [torch.nn.Parameter(torch.rand(2)) for _ in range(3)]
    turn, turned = torch.Tensor.to, []

    def stop_at_the_last(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
        if len(turned) == 2:
            raise KeyboardInterrupt
        turned.append(turn(tensor, kind))
        return turned[-1]

    monkeypatch.setattr(torch.Tensor, "to", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt), narrowed(weights):
        pass
    assert [each.dtype for each in turned] == [torch.bfloat16] * 2
    assert {each.dtype for each in weights} == {torch.float32}
