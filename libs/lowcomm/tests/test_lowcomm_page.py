from pathlib import Path

from windfall.lowcomm.advice import Link, advise

PAGE = (Path(__file__).parents[3] / "docs" / "lowcomm.md").read_text()


def test_the_pages_example_runs() -> None:
    (_, example), *others = [part.split("```python\n") for part in PAGE.split("\n```\n") if "```python\n" in part]
    assert not others
    exec(compile(example, "docs/lowcomm.md", "exec"), {})


def test_the_pages_advice_is_given() -> None:
    assert advise(10_000_000, 0.6, Link(100e6, 100e6, 0.035), 4).line in " ".join(PAGE.split())
