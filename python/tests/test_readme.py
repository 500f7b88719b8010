"""The README's first example, as it stands."""

import os
import re

from conftest import ROOT


def test_first_example(tmp_path, monkeypatch, capsys):
    with open(os.path.join(ROOT, "python", "README.md"), encoding="utf-8") as f:
        example = re.search(r"```python\n(.*?)```", f.read(), re.DOTALL).group(1)
    os.symlink(os.path.join(ROOT, "assets"), tmp_path / "assets")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in lines if line.startswith("step")]
    assert len(losses) == 10 and losses[-1] < losses[0]
    assert float(lines[-1].split()[-1]) < losses[-1] + 0.1
