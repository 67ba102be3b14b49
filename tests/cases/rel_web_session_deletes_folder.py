"""The web page takes the session name from the client as a folder name: it must never delete
anything outside of its own folder. Harmless: everything lies in a temporary folder."""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

sys.path.insert(0, ".")
try:
    import gradio  # noqa: F401
except ImportError:
    sys.modules["gradio"] = MagicMock()
from matcher.web.page import Actions

faults = []
for name in ("../victim", "ABSOLUTE", "..", "a/../../victim", ".", ""):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        downloads, victim = base / "downloads", base / "victim"
        (downloads / "another_session").mkdir(parents=True)
        victim.mkdir()
        (victim / "precious.txt").write_text("x")
        session = str(victim) if name == "ABSOLUTE" else name
        try:
            Actions(downloads).forget(SimpleNamespace(session_hash=session))
        except Exception as error:  # a refusal is right
            print(f"{name!r}: refused, {type(error).__name__}")
        kept = (victim / "precious.txt").exists() and (downloads / "another_session").exists()
        if not kept:
            faults.append(name)
with tempfile.TemporaryDirectory() as folder:  # an ordinary session still works
    try:
        actions = Actions(Path(folder))
        own = actions.folders.of("an_ordinary_session")
        assert own.is_dir()
        actions.forget(SimpleNamespace(session_hash="an_ordinary_session"))
        assert not own.exists()
    except Exception as error:
        faults.append(f"ordinary session: {type(error).__name__}")
print("deleted beyond its own folder for session names:", faults)
sys.exit(bool(faults))
