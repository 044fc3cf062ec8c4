"""Only fetching opens connections to publishers: which modules can, and who calls them."""

from __future__ import annotations

import ast

from tests.test_architecture import OURS, TREES

NETWORK = {"urllib.request", "http.client", "requests", "httpx", "huggingface_hub", "ftplib", "aiohttp", "urllib3"}
# What they are for.
ALLOWED = {
    "autoseg.weights.connection": "reads the proxies of the environment",
    "autoseg.weights.download": "downloads a file",
    "autoseg.weights.hub": "asks the hub where a file is",
}
OWN_SOCKETS = {
    "autoseg.prediction.review_server": "the page on this machine",
    "autoseg.runner.ray_engine": "whether the user's Ray cluster answers",
}
# Asked only if the user names the service (tests/omnimodel).
SERVICES = "autoseg.omnimodel."


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_only_these_modules_can_open_a_connection() -> None:
    able = {name for name, tree in TREES.items() if imported(tree) & NETWORK and not name.startswith(SERVICES)}
    assert able <= set(ALLOWED), sorted(able - set(ALLOWED))


def test_sockets_are_for_this_machine_and_the_users_own() -> None:
    using = {
        name
        for name, tree in TREES.items()
        if not name.startswith(SERVICES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "socket" and node.attr != "gethostname"
    }
    assert using <= set(OWN_SOCKETS), sorted(using - set(OWN_SOCKETS))


def test_only_fetch_uses_them() -> None:
    opening = {"autoseg.weights.download", "autoseg.weights.hub", "autoseg.weights.fetch"}
    users = {name for name, uses in OURS.items() if uses & opening}
    assert users == {"autoseg.weights.fetch", "autoseg.weights.hub", "autoseg.api.weights"}


def test_no_library_is_asked_to_download_weights() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            asked = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            assert asked.get("pretrained", "False") != "True", f"{name}:{node.lineno} downloads weights"
            called = ast.unparse(node.func)
            assert not called.endswith(("load_state_dict_from_url", "hub.load", "hf_hub_download", "snapshot_download")), name
