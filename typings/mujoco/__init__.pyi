# MuJoCo's bindings are compiled and come without stubs: without this, pyright calls every one of their names unknown.
from typing import Any

def __getattr__(name: str) -> Any: ...
