"""The steps of the scenario say what they have found when they fail."""

import pytest

pytest.register_assert_rewrite("crossings.scenario")
