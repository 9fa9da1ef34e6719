"""What others see of a gateway on the broker, retained below `mqtt.status_topic`, and what Home Assistant makes of it.

    edgeq/<gateway>/state           online, or offline, which is the will (the session publishes it)
    edgeq/<gateway>/info            which edgeq runs, since when, on what (`gateway`)
    edgeq/<gateway>/health          how it is (`health`)
    edgeq/<gateway>/contracts/ID    how a contract stands (`contracts`)
    homeassistant/device/ID/config  that there are these, for Home Assistant (`discovery`)

What can be relied on:

- All of it is published anew with each connection, so a broker that has lost what it retained has it again; after a
  reload, which makes a new connection, it is what the new configuration says.
- It says what is committed, never what is about to be.
- Nothing stays behind: what edgeq has published and no longer publishes is cleared, also when it wasn't running
  meanwhile (see `retained`).
- A quiet gateway publishes nothing, and writes nothing.
- Where several members share a store, each has its own state, info and health. Contracts belong to all of them: the one
  that judges them publishes them, under the name of the group.
"""
