"""Forwarding: a gateway's events go to its site, each of them once there, whatever happens on the way.

- `processor`: a processor of kind `forward`: what is sent when, and what becomes of it
- `window`: which events of the chosen types went before their turn, newest first
- `settings`: its keys in the configuration
- `wire`: a batch as JSON, written and read
- `target`, and `http`, `mqtt`, `postgresql`: the ways to a site
- `making`: all of that put together

At the site, batches are taken from MQTT by `edgeq.intake.receive`, and by HTTP by `edgeq.web.ingest`.

An event keeps one key wherever it goes, `<id of the gateway's store>:<id of the event>`, so that a batch which is sent
again changes nothing. What the site does with it is the same on all three ways: see `edgeq.store.forwarded`.
"""
