"""What an idle `edgeq run` costs: memory, processor time, bytes written and wake-ups, over ten minutes.

Connected to a mosquitto, with a route, a courier, a sentinel with two contracts, and a channel, but no messages. Ends
with status 1 when a budget of SPEC section 12 is exceeded.
"""

from __future__ import annotations

import sys
import time

from process import bytes_written, memory_mib, processor_seconds, wakeups
from support import Appliance, arguments, mosquitto, note, results, scratch

MEMORY_MIB = 40.0
PROCESSOR_PERCENT = 0.3
SETTLE_SECONDS = 5
CONFIG = """\
gateway: bench
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
routes: [{{topic: "sensors/{{device}}/{{metric}}", emit: "{{metric}}.reading", subject: "{{device}}"}}]
processors: {{courier: {{kind: courier}}, sentinel: {{kind: sentinel}}}}
channels: {{journal: {{kind: log}}}}
notifications: {{routes: [{{match: {{tags: [notification]}}, channels: [journal]}}]}}
contracts:
  - {{name: reports, kind: absence, of: temperature.reading, every: 10m}}
  - {{name: cold, kind: threshold, of: temperature.reading, field: value, above: -15, for: 10m}}
"""


def main() -> int:
    """Measure, print, say whether it is little enough."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="to watch (default: 10)")
    options = parser.parse_args()
    with (
        results(options),
        scratch(options.folder) as folder,
        mosquitto(folder) as port,
        Appliance(folder, CONFIG.format(port=port)) as edgeq,
    ):
        edgeq.wait_connected()
        time.sleep(SETTLE_SECONDS)
        before = bytes_written(edgeq.pid), processor_seconds(edgeq.pid), wakeups(edgeq.pid), time.monotonic()
        time.sleep(options.minutes * 60)
        after = bytes_written(edgeq.pid), processor_seconds(edgeq.pid), wakeups(edgeq.pid), time.monotonic()
        written, used, woken, seconds = (now - then for now, then in zip(after, before, strict=True))
        memory = memory_mib(edgeq.pid)
        rows = [
            ("resident memory, MiB", memory, MEMORY_MIB),
            ("processor time, % of one core", 100 * used / seconds, PROCESSOR_PERCENT),
            ("bytes written", written, 0.0),
        ]
        note({"memory_mib": memory, "processor_percent": 100 * used / seconds, "bytes": written, "seconds": seconds})
        print(f"{seconds:.0f} idle seconds")
        print(f"{'':32} {'is':>9} {'allowed':>9}")
        for name, value, allowed in rows:
            print(f"{name:32} {value:9.2f} {allowed:9.2f}{'  too much' if value > allowed else ''}")
        print(f"{'wake-ups a second':32} {woken / seconds:9.2f}")
    return 1 if any(value > allowed for _, value, allowed in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
