"""The reader of our compose files: reads what they use as YAML does, and nothing else."""

from __future__ import annotations

import pytest

from tests.deploy.yaml_subset import NotOurYaml, read

EXAMPLE = """
# a comment
name: core
x-base: &base
  image: a:1
  list: ["x", "y z"]
  inner: &inner
    deep: 5

services:
  one:
    <<: *base
    image: b-2.yml
    ports:
      - "1:1"
      - plain
      - source: s
        target: /t/u
    empty:
  two:
    inner: *inner
    sure: true
"""


def test_what_our_files_use_is_read() -> None:
    inner = {"deep": 5}
    assert read(EXAMPLE) == {
        "name": "core",
        "x-base": {"image": "a:1", "list": ["x", "y z"], "inner": inner},
        "services": {
            "one": {
                "image": "b-2.yml",
                "list": ["x", "y z"],
                "inner": inner,
                "ports": ["1:1", "plain", {"source": "s", "target": "/t/u"}],
                "empty": None,
            },
            "two": {"inner": inner, "sure": True},
        },
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: 5027:5027", "a: 0644", "a: yes", "a: 1.5", "a: 'x'", "a: {b: c}", "a: [b]", "a: |", "a: b: c", "a: b # c",
        "a: *none", "a: 1\na: 2", "a: 1\n  b: 2", "a:\n    b: 1\n  c: 2", "a:\t1", "a: 1 ", "word", "- a\nb: 1",
        "a: !x y",        "a: \"x\" y", "a: [\"x\", 1]", "a: -", "a: 12:30",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(NotOurYaml):
        read(text)
