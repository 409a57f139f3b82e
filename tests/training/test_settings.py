import json

import pytest
import torch
from trained import numbers, tiny

from lwnb.base import disk
from lwnb.records import folders
from lwnb.training import settings, train


def test_a_setting_is_in_force_for_a_run_alone(tmp_path):
    before, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with settings.settled(tmp_path / "run") as chosen:
        assert (chosen.threads, chosen.device) == (before, "cpu") and chosen.memory_format == "channels_last"
        assert tf32 and not torch.backends.cudnn.allow_tf32
        torch.set_num_threads(before + 2)
    assert torch.get_num_threads() == before and torch.backends.cudnn.allow_tf32


@pytest.mark.slow
def test_a_run_goes_on_with_the_threads_and_memory_format_that_it_began_with(house):
    begun = {"device": "cpu", "threads": 2, "memory_format": "contiguous_format", "fused": False, "keep_memory": False}
    run = tiny(epochs=1)
    folders.part(run).mkdir(parents=True)
    disk.write(folders.part(run) / "setting.json", json.dumps(begun).encode())
    record = train.train(run)
    assert {name: record.environment[name] for name in begun} == begun
    assert torch.get_num_threads() == 1 and not (record.folder / "setting.json").exists()


def test_a_run_begun_on_another_device_takes_the_setting_of_this_one(tmp_path):
    begun = {"device": "cuda", "threads": 9, "memory_format": "contiguous_format", "fused": False, "keep_memory": False}
    (tmp_path / "setting.json").write_text(json.dumps(begun))
    with settings.settled(tmp_path) as chosen:
        assert chosen == settings.fastest()


def test_the_allocator_changes_no_bit_and_the_fused_optimiser_only_rounding(house, tmp_path, monkeypatch):
    run = tiny(epochs=1)
    fast = train.train(run)
    for fused in (True, False):
        monkeypatch.setenv("LWNB_HOME", str(tmp_path / f"plain-{fused}"))
        monkeypatch.setattr(
            settings, "fastest", lambda on=fused: settings.Setting("cpu", 1, "channels_last", on, False)
        )
        plain = train.train(run)
        assert plain.environment["fused"] is fused
        if fused:
            assert numbers(plain) == numbers(fast)
        assert abs(plain.history["train_loss"][0] / fast.history["train_loss"][0] - 1) < 5e-3
        assert abs(plain.metrics["loss"] - fast.metrics["loss"]) < 1e-3
