"""The name of a device."""

import pytest

from facerec.errors import ConfigurationError
from facerec.settings.edge import EdgeSettings, thing_name


def test_thing_is_named_by_its_setting_or_by_the_nucleus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is first."""
    monkeypatch.setenv("AWS_IOT_THING_NAME", "from-the-nucleus")
    assert thing_name(EdgeSettings()) == "from-the-nucleus"
    assert thing_name(EdgeSettings(thing="set-here")) == "set-here"


@pytest.mark.parametrize("name", ["", "a/b", "#", "a:b", "x" * 101])
def test_thing_without_a_usable_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is part of topics and file names."""
    monkeypatch.setenv("AWS_IOT_THING_NAME", name)
    with pytest.raises(ConfigurationError, match=r"FACEREC_EDGE__THING|AWS_IOT_THING_NAME is"):
        thing_name(EdgeSettings())
