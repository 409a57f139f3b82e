import re

import pandas as pd
import pytest

from lwnb.base.errors import ParamsError
from lwnb.plan import facts
from lwnb.plan.params import check
from lwnb.report import answer


def test_the_readme_is_left_alone_where_nothing_is_published_or_no_marks_stand(house, monkeypatch):
    readme = house / "README.md"
    readme.write_text("# lwnb\n")
    monkeypatch.setattr(facts, "PUBLISHED", ())
    with pytest.raises(ParamsError, match="no page is published"):
        answer.write(readme)
    monkeypatch.setattr(answer, "pages", lambda: [check({})])
    with pytest.raises(ParamsError, match=re.escape("has no lines")):
        answer.write(readme)
    assert [file.name for file in house.iterdir()] == ["README.md"] and readme.read_text() == "# lwnb\n"


def test_the_answer_in_short_names_the_fronts_and_what_each_network_loses_worked_by_hand():
    models = ["mobilenet_v3_small", "resnet18", "squeezenet1_1"]
    frame = pd.DataFrame(
        {"model": models, "top1": [0.5, 0.8, 0.6], "int8_mb": [2.0, 11.0, 1.0], "int8_ms": [0.2, 0.9, 0.3]}
    ).assign(noise=float("nan"), guess_top1=0.1, num_classes=10, macro_f1=0.5)
    said = answer.short(frame)
    assert "By the INT8 file: ResNet18 has top-1 0.800 with 11.00 MB; SqueezeNet 1.1 0.200 less with 1.00 MB." in said
    assert "SqueezeNet 1.1 0.200 less with 0.30 ms; MobileNetV3-Small 0.300 less with 0.20 ms." in said
    assert "neither" not in said
    assert "cost less: MobileNetV3-Small." in answer.short(frame.assign(int8_ms=[0.4, 0.9, 0.3]))
    assert answer.short(frame.assign(int8_ms=float("nan"))) == ""
    assert "0.700" not in said and "0.500" not in said
    unequal = answer.short(frame.assign(guess_top1=0.7, num_classes=2))
    assert "0.700" in unequal and "SqueezeNet 1.1 0.500" in unequal
    assert "MobileNetV3-Small 0.300 less" in answer.short(frame.assign(int8_ms=[0.28, 0.9, 0.3], noise=0.03))
    told = answer.short(frame.assign(int8_ms=[0.295, 0.9, 0.3], noise=0.03))
    assert "By its latency (equal within 3%" in told and "cost less: MobileNetV3-Small." in told
