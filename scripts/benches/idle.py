"""What an idle `edgeq run` costs: memory, processor time, bytes written and wake-ups, over ten minutes.

Connected to a mosquitto, with a route, a courier, a sentinel with two contracts, and a channel, but no messages. With
`--web` it serves the page and the interface, too, and was asked once for all that there is to ask for, also metrics.
Ends with status 1 when a budget of SPEC section 12 is exceeded.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request

from process import bytes_written, memory_mib, processor_seconds, wakeups
from support import Appliance, arguments, free_port, mosquitto, note, results, scratch

MEMORY_MIB = 40.0
WEB_MEMORY_MIB = 48.0
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
WEB = 'web: {{listen: "127.0.0.1:{port}"}}\n'


def main() -> int:
    """Measure, print, say whether it is little enough."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="to watch (default: 10)")
    parser.add_argument("--web", action="store_true", help="with the page and the interface")
    options = parser.parse_args()
    web_port = free_port()
    web = WEB.format(port=web_port) if options.web else ""
    with (
        results(options),
        scratch(options.folder) as folder,
        mosquitto(folder) as port,
        Appliance(folder, CONFIG.format(port=port) + web) as edgeq,
    ):
        edgeq.wait_connected()
        if options.web:
            look_at_everything(f"http://127.0.0.1:{web_port}")
        time.sleep(SETTLE_SECONDS)
        before = bytes_written(edgeq.pid), processor_seconds(edgeq.pid), wakeups(edgeq.pid), time.monotonic()
        time.sleep(options.minutes * 60)
        after = bytes_written(edgeq.pid), processor_seconds(edgeq.pid), wakeups(edgeq.pid), time.monotonic()
        written, used, woken, seconds = (now - then for now, then in zip(after, before, strict=True))
        memory = memory_mib(edgeq.pid)
        rows = [
            ("resident memory, MiB", memory, WEB_MEMORY_MIB if options.web else MEMORY_MIB),
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


def look_at_everything(address: str) -> None:
    """Ask once for what the interface can be asked for, but the stream, which has no end."""
    with urllib.request.urlopen(f"{address}/api/openapi.json", timeout=30) as described:
        paths = json.load(described)["paths"]
    for path, methods in paths.items():
        if "get" in methods and path != "/api/stream":
            try:
                with urllib.request.urlopen(address + path.replace("{", "").replace("}", ""), timeout=30) as answer:
                    answer.read()
            except urllib.error.HTTPError as error:
                error.close()


if __name__ == "__main__":
    sys.exit(main())
