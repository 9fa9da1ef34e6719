"""edgeq: an MQTT-triggered queue appliance for gateways."""
