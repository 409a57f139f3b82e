"""A notebook's code cells, run in this process."""

import ast
import json

from lwnb.base.places import CHECKOUT


def execute(name: str, values: dict, monkeypatch) -> str:
    """Run a notebook's code cells with these parameters; all that they show."""
    shown, space = [], {}

    def show(*things):
        for thing in things:
            form = getattr(thing, "_repr_markdown_", None) or getattr(thing, "_repr_html_", lambda: None)
            shown.append(str(form()))

    monkeypatch.setattr("IPython.display.display", show)
    monkeypatch.setattr("lwnb.report.figures.display", show)
    for cell in json.loads((CHECKOUT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            body = ast.parse("".join(cell["source"])).body
            last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), name, "exec"), space)  # noqa: S102 - a notebook of this repository
            if last:
                show(eval(compile(last, name, "eval"), space))
            if "parameters" in cell["metadata"].get("tags", []):
                space |= values
    return "\n".join(shown)
