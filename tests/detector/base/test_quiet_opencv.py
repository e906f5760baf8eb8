"""Commands have a line of their own about a damaged file; OpenCV and its FFmpeg add none."""

import os
import subprocess
import sys

CODE = """\
import sys
from pathlib import Path
{first}
from detector.inference.video_files import open_video
print(open_video(Path(sys.argv[1])).isOpened())
"""
QUIET = "from detector.base.process import quieten_opencv; quieten_opencv()"


def test_a_damaged_video_is_no_matter_for_opencv(tmp_path):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(b"no video")

    # other tests run commands in this process, which set them
    environment = {key: v for key, v in os.environ.items() if not key.startswith("OPENCV_")}

    def said(first: str) -> str:
        process = subprocess.run(
            [sys.executable, "-c", CODE.format(first=first), str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert process.stdout == "False\n"
        return process.stderr

    assert "backend is generally available" in said("")
    assert said(QUIET) == ""
