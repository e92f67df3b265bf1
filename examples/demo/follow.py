"""Draws docs/follow.svg: the output of the commands below, with its real timing.

    cargo build && python3 examples/demo/follow.py target/debug > docs/follow.svg
"""

import os
import subprocess
import sys
import tempfile
import time
from html import escape

START = """
AE_ROLE=api AE_BIND=127.0.0.1:8080 async-endpoints-demo >/dev/null 2>&1 &
AE_ROLE=worker AE_BIND=127.0.0.1:9001 async-endpoints-demo >/dev/null 2>&1 & WORKER=$!
curl -sf --retry 20 --retry-all-errors --retry-delay 1 localhost:8080/health/ready -o /dev/null
curl -sf --retry 20 --retry-all-errors --retry-delay 1 localhost:9001/health/ready -o /dev/null
"""
# What the reader sees: comments, and commands with their output.
STEPS = [
    "# A slow endpoint answers at once, with a job.",
    "JOB=localhost:8080/jobs/$(curl -s localhost:8080/api/sleep --json '{\"seconds\": 3}' | jq -r .id)",
    "# Start a second worker. Then kill the first one while it runs the job.",
    "AE_ROLE=worker AE_BIND=127.0.0.1:9002 async-endpoints-demo >/dev/null 2>&1 &",
    "(sleep 1; kill -9 $WORKER) &",
    "# Follow the job by server-sent events.",
    "curl -sN $JOB/events | sed -un 's/^data: //p' | jq --unbuffered -c '[.status,.attempt,(.progress.percent//0|floor)]'",
    "curl -s $JOB | jq -c '{status, attempt, lossCount, outcomes: [.attempts[].outcome]}'",
]
# Pauses are shortened to this, as the eight seconds of the lease.
LONGEST_PAUSE = 1.5
# All lines are shown this long at first, for programs that show the first picture only.
POSTER = 2
LINE, MARGIN, COLUMNS = 19, 16, 118
END = "end of the output"


def record(programs):
    """The lines of the terminal, with the time of each."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": f"{os.path.abspath(programs)}:{os.environ['PATH']}"}
        bash = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True, cwd=folder, env=environment, start_new_session=True)
        bash.stdin.write(START)
        try:
            for step in STEPS:
                bash.stdin.write(f"{step}\necho '{END}'\n")
                bash.stdin.flush()
                yield time.monotonic(), ("# " if step.startswith("#") else "$ ") + step.removeprefix("# ")
                for line in iter(bash.stdout.readline, f"{END}\n"):
                    yield time.monotonic(), line.rstrip("\n")
        finally:
            os.killpg(bash.pid, 9)
            bash.wait()


def shortened(lines):
    """Lines with times from 0, without long pauses. A command takes a moment to read."""
    at, last = 0.0, None
    for moment, line in lines:
        pause = 0.0 if last is None else min(moment - last, LONGEST_PAUSE)
        at, last = at + (max(pause, 0.8) if line[:2] in ("$ ", "# ") else pause), moment
        yield at, line


def wrapped(line):
    return [line[start:start + COLUMNS] for start in range(0, len(line), COLUMNS)] or [""]


def svg(lines):
    rows = [(at, part, line[:2]) for at, line in lines for part in wrapped(line)]
    duration = POSTER + rows[-1][0] + 3
    width, height = round(COLUMNS * 7.83) + 2 * MARGIN, len(rows) * LINE + 2 * MARGIN
    frames, texts = [], []
    poster = 100 * POSTER / duration
    for row, (at, text, start) in enumerate(rows):
        if at > 0:
            shown = 100 * (POSTER + at) / duration
            hidden = f"{poster:.2f}%,{shown:.2f}%{{opacity:0}}{shown + 0.01:.2f}%,100%{{opacity:1}}"
            frames.append(f"@keyframes l{row}{{0%,{poster - 0.01:.2f}%{{opacity:1}}{hidden}}}#l{row}{{animation-name:l{row}}}")
        kind = {"$ ": "command", "# ": "comment"}.get(start, "output")
        texts.append(f'<text id="l{row}" class="{kind}" x="{MARGIN}" y="{MARGIN + LINE * row + 14}">{escape(text)}</text>')
    style = (
        "rect{fill:#16191f;stroke:#4b5260}text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre;"
        f"animation-duration:{duration:.1f}s;animation-iteration-count:infinite}}"
        ".command{fill:#fff}.comment{fill:#9aa4b5}.output{fill:#7fd88f}"
        # Without motion, all lines are shown.
        "@media (prefers-reduced-motion:reduce){text{animation:none}}"
    )
    title = "A job is followed while its worker is killed; another worker completes it"
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">')
    print(f"<title>{title}</title><style>{style}{''.join(frames)}</style>")
    print(f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>', *texts, "</svg>", sep="\n")


svg(list(shortened(record(sys.argv[1]))))
