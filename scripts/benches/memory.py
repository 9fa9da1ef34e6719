"""Memory while 500 messages a second come in, for an hour: at the start, minute by minute, at its peak.

With a route, a courier, a sentinel with two contracts, and a channel. `--minutes` says how long in truth. Ends with
status 1 when it becomes more than SPEC section 12 allows, or messages wait at the end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import idle
from limits import Sender
from process import memory_mib, processor_seconds
from support import Appliance, arguments, mosquitto, note, publish_packet, results, scratch

MEMORY_MIB = 64.0
SAMPLES = 12


def main() -> int:
    """Measure, print, say whether it is little enough."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="to publish (default: 60)")
    parser.add_argument("--rate", type=int, default=500, help="messages a second (default: 500)")
    options = parser.parse_args()
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        print(f"{options.minutes:g} minutes with {options.rate} messages a second; resident memory, MiB", flush=True)
        peak, cores, waiting = measure(folder, port, options.rate, options.minutes * 60)
        note({"peak_mib": peak, "cores": cores, "minutes": options.minutes})
        print(f"peak {peak:.1f}, allowed {MEMORY_MIB}; {cores:.2f} cores; {waiting} messages waited at the end")
    return 1 if peak > MEMORY_MIB or waiting else 0


def measure(folder: Path, port: int, rate: int, seconds: float) -> tuple[float, float, int]:
    """The peak in MiB, the cores used, and how many messages were not stored 30 s after the last was published."""
    with Appliance(folder, idle.CONFIG.format(port=port)) as edgeq:
        edgeq.wait_connected()
        print(f"idle {memory_mib(edgeq.pid):6.1f}", flush=True)
        began, used = time.monotonic(), processor_seconds(edgeq.pid)
        sender = Sender(port, rate, seconds, reading)
        with sender:
            while sender.is_alive():
                sender.join(seconds / SAMPLES)
                print(f"{(time.monotonic() - began) / 60:4.1f} {memory_mib(edgeq.pid):6.1f}", flush=True)
        cores = (processor_seconds(edgeq.pid) - used) / (time.monotonic() - began)
        deadline = time.monotonic() + 30
        while edgeq.counter("edgeq_messages_acked_total") < len(sender.sent) and time.monotonic() < deadline:
            time.sleep(0.2)
        waiting = len(sender.sent) - edgeq.counter("edgeq_messages_acked_total")
        return memory_mib(edgeq.pid, peak=True), cores, waiting


def reading(number: int) -> bytes:
    """What is published as message `number`."""
    data = b'{"value":%.1f,"unit":"C","seq":%d}' % (20 + number % 50 / 10, number)
    return publish_packet(f"sensors/device-{number % 40}/temperature", data, number)


if __name__ == "__main__":
    sys.exit(main())
