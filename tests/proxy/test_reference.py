"""docs/proxy.md leaves nothing out, and invents nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from proxy.observe.metrics import Metrics
from proxy.options import OPTIONS, UPSTREAM_SETTINGS, parse_toml
from proxy.settings import make_config

PAGE = (Path(__file__).parent.parent.parent / "docs" / "proxy.md").read_text()


def rows(title: str) -> set[str]:
    """All names in the first column of the table under a title."""
    section = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(title + "\n")]
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", found, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_option():
    assert rows("Options") == {option.name for option in OPTIONS}


def test_every_setting_of_an_upstream():
    assert rows("Settings of an upstream") == {option.name for option in UPSTREAM_SETTINGS}


def test_every_metric():
    metrics = Metrics()
    names = {
        metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
        for metric in metrics.registry.collect()
    }
    assert rows("Metrics") == names


@pytest.mark.parametrize("example", re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
def test_examples_are_configurations(example: str):
    assert tomllib.loads(example)
    make_config(parse_toml(example), "memory:")


def test_links_lead_somewhere():
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)}
    assert set(re.findall(r"\(#([^)]+)\)", PAGE)) <= titles
