import re

import pytest

from lwnb import answer, params
from lwnb.params import ParamsError, check


def test_the_readme_is_left_alone_where_nothing_is_published_or_no_marks_stand(house, monkeypatch):
    readme = house / "README.md"
    readme.write_text("# lwnb\n")
    monkeypatch.setattr(params, "PUBLISHED", ())
    with pytest.raises(ParamsError, match="no page is published"):
        answer.write(readme)
    monkeypatch.setattr(answer, "pages", lambda: [check({})])
    with pytest.raises(ParamsError, match=re.escape("has no lines")):
        answer.write(readme)
    assert [file.name for file in house.iterdir()] == ["README.md"] and readme.read_text() == "# lwnb\n"
