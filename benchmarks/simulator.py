"""What a simulated fleet costs: CPU seconds and memory of `signalkeep simulate` against a gateway that only answers.

    python -m benchmarks.simulator --devices 5000 --rate 5000 --seconds 30

Prints one JSON object. Promises to measure the child process alone, start and end included; judges nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.acknowledging import acknowledging


def measure(devices: int, rate: float, seconds: float, more: list[str]) -> dict[str, Any]:
    """Run the fleet once."""
    with acknowledging() as port:
        command = [
            *(sys.executable, "-m", "signalkeep", "simulate", "--port", str(port), "--json"),
            *("--devices", str(devices), "--rate", str(rate), "--duration", str(seconds), *more),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    report: dict[str, Any] = json.loads(text)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {
        "cpu_s": round(cpu_s, 2),
        "user_s": round(usage.ru_utime, 2),
        "system_s": round(usage.ru_stime, 2),
        "cpu_us_per_record": round(cpu_s / max(1, report["generated"]) * 1e6, 1),
        "rss_mib_max": round(usage.ru_maxrss / 1024, 1),
        **report,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=5000.0, help="records per second of the whole fleet")
    parser.add_argument("--seconds", type=float, default=30.0)
    known, more = parser.parse_known_args()
    print(json.dumps(measure(known.devices, known.rate, known.seconds, more), indent=2))


if __name__ == "__main__":
    main()
