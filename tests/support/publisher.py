"""Publishes numbers, one after the other, and writes down each that the broker has acknowledged.

Run inside the container as a service: FILE of what was acknowledged, USER and PASSWORD at the broker. A number whose
acknowledgement doesn't come is sent again, so nothing is left out, and some may come twice.
"""

from __future__ import annotations

import os
import sys
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

PAUSE_SECONDS = 0.05


def main(path: str, user: str, password: str) -> None:
    """Never returns."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=user)
    client.username_pw_set(user, password)
    client.reconnect_delay_set(1, 1)
    client.connect_async("localhost", 1883, keepalive=10)
    client.loop_start()
    with open(path, "a+") as file:
        file.seek(0)
        number = len(file.readlines())
        while True:
            number += 1
            while not client.is_connected():
                time.sleep(0.05)
            sent = client.publish(f"sensors/{user}/count", f'{{"n": {number}}}', qos=1)
            while sent.rc == paho.MQTT_ERR_SUCCESS and not sent.is_published():  # sent again after a reconnect
                time.sleep(0.01)
            if sent.rc != paho.MQTT_ERR_SUCCESS:
                number -= 1
                continue
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
