import re

import pytest

from lwnb.base.errors import ParamsError
from lwnb.plan import facts
from lwnb.plan.params import check
from lwnb.report import make


def test_the_readme_is_left_alone_where_nothing_is_published_or_no_marks_stand(house, monkeypatch):
    readme = house / "README.md"
    readme.write_text("# lwnb\n")
    monkeypatch.setattr(facts, "PUBLISHED", ())
    with pytest.raises(ParamsError, match="no page is published"):
        make.readme(readme)
    monkeypatch.setattr(make, "pages", lambda: [check({})])
    with pytest.raises(ParamsError, match=re.escape("has no lines")):
        make.readme(readme)
    assert [file.name for file in house.iterdir()] == ["README.md"] and readme.read_text() == "# lwnb\n"
