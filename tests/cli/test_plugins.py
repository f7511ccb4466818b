"""What is installed is listed, with its options."""

from __future__ import annotations

import json

from support.mood import Run


def test_what_is_installed_is_listed(layerimp_command: Run) -> None:
    found = json.loads(layerimp_command("plugins", "--json")[1])["plugins"]
    assert {plugin["name"]: plugin["status"] for plugin in found} == dict.fromkeys(
        (
            *(
                "architectures",
                "avss",
                "baselines",
                "cim",
                "closedform",
                "distill",
                "footprint",
                "gbis",
                "greedy",
                "harness",
                "lowest",
                "lrp",
                "prose",
            ),
            *("starter", "tasks", "window"),
        ),
        "ok",
    )
    components = {plugin["name"]: plugin["components"] for plugin in found}
    assert components["distill"] == {"healer": ["distill"]}
    assert components["closedform"] == {"healer": ["linear", "rescale"]}
    assert components["prose"] == {}
    assert "healers linear, rescale" in layerimp_command("plugins")[1]
    (avss,) = json.loads(layerimp_command("scorers", "avss", "--json")[1])["scorers"]
    options = {option["name"]: option for option in avss["options"]}
    assert options["epsilon"] == {
        "name": "epsilon",
        "type": "float",
        "default": 0.1,
        "description": options["epsilon"]["description"],
    }
    assert all(option["description"] for option in options.values())
    assert "2411.02117" in avss["reference"]
    assert layerimp_command("scorers", "avs")[0] == 2
    assert "relative | absolute" in layerimp_command("scorers", "avss")[1]
